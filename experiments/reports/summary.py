"""The result of a run, and ``summary.csv``, which lists those of a sweep."""

import collections
import csv
import dataclasses
import io
import math
from typing import Optional

from chainerlp.extensions.files import write_text
from experiments import tasks
from experiments.config import Config


@dataclasses.dataclass(frozen=True)
class Underflow:
    """Underflow rates of a run, as fractions of the elements of the layers' data gradients.

    Attributes:
        mean (float): Over layers and measured iterations.
        mean_unscaled (float): The same, of the same gradients with every scale 1.
        worst_layer (float): Of the layer with the highest mean over the iterations.
    """

    mean: float = math.nan
    mean_unscaled: float = math.nan
    worst_layer: float = math.nan


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended. What a run that failed has not come to is NaN.

    Attributes:
        config (experiments.config.Config): What was run.
        seconds (float): Time of the training, evaluations and measurements included.
        value (float): Of the task's metric on the test set, at the end.
        loss (float): On the test set, at the end; of the training, if the task evaluates none.
        underflow (Underflow): What rounding lost.
        skipped (int): Updates skipped because of gradients that were not finite.
        iterations (int): Iterations of the training.
        error (str): Why it failed, or ``None``.
        is_new (bool): Whether it was run now, and not found finished.
    """

    config: Config
    seconds: float
    value: float = math.nan
    loss: float = math.nan
    underflow: Underflow = Underflow()
    skipped: float = math.nan
    iterations: float = math.nan
    error: Optional[str] = None
    is_new: bool = True

    @property
    def name(self):
        """str: The run's name."""
        return self.config.run_name

    @property
    def metric(self):
        """str: The name of the task's metric."""
        return tasks.get(self.config.task).metric

    @property
    def diverged(self):
        """bool: Whether it went through, but to a loss that is not finite."""
        return self.error is None and not math.isfinite(self.loss)

    def _identity(self):
        scaling, seed = self.config.scaling, self.config.seed
        return dict(name=self.name, dtype=scaling.dtype, method=scaling.method, seed=seed)

    def row(self):
        """Returns the run's row in the summary, a dict by column; rates are fractions."""
        return {
            **self._identity(),
            self.metric: f'{self.value:.6g}',
            'loss': f'{self.loss:.6g}',
            'underflow': f'{self.underflow.mean:.6g}',
            'underflow_unscaled': f'{self.underflow.mean_unscaled:.6g}',
            'skipped': self.skipped,
            'seconds': f'{self.seconds:.2f}',
        }

    def content(self):
        """Returns the result as JSON can hold it: numbers, or ``'nan'`` and the like as strings."""
        content = {
            **self._identity(),
            'metric': self.metric,
            self.metric: self.value,
            'loss': self.loss,
            'underflow': self.underflow.mean,
            'underflow_unscaled': self.underflow.mean_unscaled,
            'underflow_worst_layer': self.underflow.worst_layer,
            'skipped': self.skipped,
            'iterations': self.iterations,
            'seconds': self.seconds,
        }
        return {key: str(v) if _is_not_finite(v) else v for key, v in content.items()}


def restore(config, content):
    """Makes a result of a config and what :meth:`Result.content` gave.

    Raises:
        KeyError, TypeError, ValueError: If it is not one.
    """
    return Result(
        config,
        seconds=float(content['seconds']),
        value=float(content[content['metric']]),
        loss=float(content['loss']),
        underflow=Underflow(
            mean=float(content['underflow']),
            mean_unscaled=float(content['underflow_unscaled']),
            worst_layer=float(content['underflow_worst_layer']),
        ),
        skipped=int(content['skipped']),
        iterations=int(content['iterations']),
        is_new=False,
    )


def mean_underflow(rows):
    """Averages the underflow rates of rows of a ``scales.csv``; NaN if nothing was measured."""
    rates = collections.defaultdict(list)
    for row in rows:
        rates[row.layer, row.call].append(row.underflow)
    return Underflow(
        mean=_mean([rate for layer in rates.values() for rate in layer]),
        mean_unscaled=_mean([row.underflow_unscaled for row in rows]),
        worst_layer=max(map(_mean, rates.values()), default=math.nan),
    )


def write(path, results):
    """Writes the summary of one result or more, a row a run; as a whole or not at all."""
    rows = [result.row() for result in results]
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def _mean(values):
    return math.fsum(values) / len(values) if values else math.nan


def _is_not_finite(value):
    return isinstance(value, float) and not math.isfinite(value)
