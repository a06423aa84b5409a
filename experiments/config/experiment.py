"""One experiment, as a config file describes it."""

from typing import Optional

from experiments.config.datasets import Dataset, Loading
from experiments.config.models import Model
from experiments.config.optimizers import Optimizer
from experiments.config.scaling import Adaptive, Scaling, label
from experiments.config.schedule import Schedule
from experiments.config.section import Name, Section, Seed
from experiments.config.sweep import Sweep
from experiments.config.train import Report, Train

import pydantic


class Config(Section):
    """One experiment: what is trained on what, and how."""

    name: Name
    """Names the folder of the results."""
    seed: Seed = 0
    """Seed of ``train``: initial weights and the order of the data."""
    dataset: Dataset
    model: Model
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    train: Train
    loading: Loading = Loading()
    scaling: Scaling = Adaptive(method='adaptive')
    """What ``train`` runs."""
    report: Report = Report()
    sweep: Optional[Sweep] = None
    """What ``sweep`` runs."""
    base: Optional[str] = None
    """Another config file, from this one's folder: what this one does not say is taken from it."""

    @pydantic.field_validator('model')
    @classmethod
    def _one_task(cls, model, info):
        dataset = info.data.get('dataset')  # None if it was wrong itself
        if dataset is not None and dataset.task != model.task:
            raise ValueError(
                f'a model for {dataset.task}, as {dataset.name} is ({model.name} is for'
                f' {model.task})'
            )
        if dataset is not None and model.task == 'detection' and dataset.size != model.size:
            raise ValueError(f'size: {dataset.size}, as of the data set')
        return model

    @property
    def task(self):
        """str: What is learnt, one of :mod:`experiments.tasks`."""
        return self.dataset.task

    @property
    def run_name(self):
        """str: Names the run's folder, and the run wherever it is listed."""
        return f'{label(self.scaling)}-seed={self.seed}'

    def single(self, scaling=None, seed=None):
        """Returns the config of one run, without the sweep.

        Args:
            scaling: One of the sweep's ways of scaling; the config's own by default.
            seed (int): The config's own by default.
        """
        changes = {
            'sweep': None,
            'scaling': self.scaling if scaling is None else scaling,
            'seed': self.seed if seed is None else seed,
        }
        return self.model_copy(update=changes)

    def runs(self):
        """Returns the configs of the sweep's runs, a list.

        One seed is gone through with every way of scaling before the next begins, so that a sweep
        that is cut short has runs that can be compared.
        """
        return [
            self.single(scaling, seed)
            for seed in self.sweep.seeds
            for scaling in self.sweep.scaling
        ]
