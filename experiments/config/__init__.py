"""The schema of a config file; :func:`experiments.config.loading.load` reads one."""

from typing import Annotated, Optional

from experiments.config.dataset import Dataset, Loading
from experiments.config.model import Model
from experiments.config.optimizer import Optimizer, Schedule
from experiments.config.scaling import Adaptive, Scaling, label
from experiments.config.section import Count, InOneUnit, Interval, Name, Section, Seed, Size

import pydantic
from pydantic import Field


class Train(InOneUnit):
    """How long, and in which steps."""

    batch_size: Size
    epochs: Optional[Count] = None
    """Length of the training; either this or iterations."""
    iterations: Optional[Count] = None
    """Length of the training; either this or epochs."""
    max_iterations: Optional[Count] = None
    """Stops after so many iterations even if the epochs are not over."""
    workers: Optional[Count] = None
    """How many processes (``mpiexec -n``) share a batch, where that matters, as it does to batch
    normalization; null: however many there are."""
    evaluate: Interval = Interval(epochs=1)
    """Between two evaluations on the test set, each an entry in the log; the last iteration is
    followed by one in any case."""
    snapshot: Interval = Interval(epochs=1)
    """Between two snapshots; the last iteration is followed by one in any case."""


class Report(Section):
    """What is measured during training."""

    interval: Count = 1
    """Iterations between two measurements of underflow."""
    gradient_error: Optional[Count] = None
    """Iterations between two comparisons of gradients with those of a float32 pass; null: none."""
    comparison: Optional[Count] = None
    """Iterations between two comparisons of the gradient errors of many ways of scaling on the
    weights of fp32 runs; null: none. Other runs ignore it."""
    predictions: bool = False
    """Write beside each measured underflow what policies predict, and the scale that would do; and
    each scale as its policy would choose it without bounds."""


def _all_different(name_of):
    def check(items):
        names = [name_of(item) for item in items]
        for index, name in enumerate(names):
            if name in names[:index]:
                first = names.index(name)
                raise ValueError(f'every item once (items {first} and {index} are both {name})')
        return items

    return pydantic.AfterValidator(check)


class Sweep(Section):
    """What ``sweep`` runs: every way of scaling with every seed."""

    seeds: Annotated[
        tuple[Seed, ...], Field(strict=False, min_length=1, max_length=100), _all_different(str)
    ]
    scaling: Annotated[
        tuple[Scaling, ...],
        Field(strict=False, min_length=1, max_length=100),
        _all_different(label),
    ]


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
        """Returns the config of one run; ``scaling`` and ``seed`` are its own by default."""
        scaling = self.scaling if scaling is None else scaling
        seed = self.seed if seed is None else seed
        return self.model_copy(update={'sweep': None, 'scaling': scaling, 'seed': seed})

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
