"""The result of a run; those of a sweep in ``summary.csv``, and in the table that is printed."""

import collections
import csv
import dataclasses
import io
import math
import statistics
from typing import Optional

from chainerlp.extensions.files import write_text
from experiments import tasks
from experiments.config import Config, label
from experiments.config.errors import shortened
from experiments.reports.tables import LOSS, mean_and_deviation, percent, share

_LEGEND = """\
underflow  elements of the layers' data gradients that float16 (or the run's own format) rounds to
           zero: mean over layers and measured iterations; worst layer: mean of the layer that loses
           most; unscaled: what the same gradients would have lost at scale 1; T: the rate that the
           method accepts
skipped    updates, because of gradients that were not finite"""
_ERROR = """\
gradient   ‖g − g32‖ / ‖g32‖ against a float32 pass of the same weights: median over parameters,
error      mean over iterations; with what was lost further up, and the forward pass's roundings"""
_COMPUTE = """\
compute    of a float32 model: underflow is of the output gradients, which its layers round"""
_FP32 = """\
fp32       lost nothing: its underflow is what float16 would have lost"""


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
        gradient_error (float): How far the parameters' gradients were off; NaN if not measured.
        skipped (int): Updates skipped because of gradients that were not finite.
        iterations (int): Iterations of the training.
        incomplete (str): What was not measured although it was due, or ``None``.
        error (str): Why it failed, or ``None``.
        is_new (bool): Whether it was run now, and not found finished.
    """

    config: Config
    seconds: float
    value: float = math.nan
    loss: float = math.nan
    underflow: Underflow = Underflow()
    gradient_error: float = math.nan
    skipped: float = math.nan
    iterations: float = math.nan
    incomplete: Optional[str] = None
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

    def _outcome(self):
        return {
            self.metric: self.value,
            'loss': self.loss,
            'underflow': self.underflow.mean,
            'underflow_unscaled': self.underflow.mean_unscaled,
        }

    def row(self):
        """Returns the run's row in the summary, a dict by column; rates are fractions."""
        return {
            **self._identity(),
            **{key: f'{value:.6g}' for key, value in self._outcome().items()},
            'gradient_error': f'{self.gradient_error:.6g}',
            'skipped': self.skipped,
            'seconds': f'{self.seconds:.2f}',
            'incomplete': self.incomplete or '',
        }

    def content(self):
        """Returns the result as JSON can hold it: numbers, or ``'nan'`` and the like as strings."""
        content = {
            **self._identity(),
            'metric': self.metric,
            **self._outcome(),
            'underflow_worst_layer': self.underflow.worst_layer,
            'gradient_error': self.gradient_error,
            'skipped': self.skipped,
            'iterations': self.iterations,
            'seconds': self.seconds,
            **({} if self.incomplete is None else {'incomplete': self.incomplete}),
        }
        return {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in content.items()
        }


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
        gradient_error=float(content.get('gradient_error', math.nan)),  # of before it was there
        skipped=int(content['skipped']),
        iterations=int(content['iterations']),
        incomplete=shortened(content['incomplete'], 200) if 'incomplete' in content else None,
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


def mean_error(rows):
    """Averages the medians over the parameters of rows of a ``gradient_error.csv``."""
    errors = collections.defaultdict(list)
    for row in rows:
        if not math.isnan(row.error):
            errors[row.iteration].append(row.error)
    medians = list(map(statistics.median, errors.values()))
    return math.inf if math.inf in medians else _mean(medians)


def write(path, results):
    """Writes the summary of one result or more, a row a run; as a whole or not at all."""
    rows = [result.row() for result in results]
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def render(results):
    """Renders results of one task, at least one, as a table with a legend.

    Several seeds of one way of scaling are one line, mean ± standard deviation. Runs that failed
    are left out of it and listed above, as are those that diverged.
    """
    groups = {}
    for result in results:
        groups.setdefault(label(result.config.scaling), []).append(result)
    header = ['method', 'runs', results[0].metric, 'loss', 'unscaled', 'T', 'skipped', 'seconds']
    header += ['underflow', 'worst layer', 'gradient error']
    rows = [header] + [_row(name, runs) for name, runs in groups.items()]
    has_errors = not all(math.isnan(result.gradient_error) for result in results)
    lines = [f'failed: {result.name}: {result.error}' for result in results if result.error]
    lines += [f'incomplete: {r.name}: {r.incomplete}' for r in results if r.incomplete]
    lines += [f'diverged: {result.name}' for result in results if result.diverged]
    lines += [''] * bool(lines)
    lines += aligned(rows if has_errors else [row[:-1] for row in rows])
    lines += ['', _LEGEND]
    if has_errors:
        lines.append(_ERROR)
    if any(getattr(result.config.scaling, 'compute', None) for result in results):
        lines.append(_COMPUTE)
    if any(result.config.scaling.method == 'fp32' for result in results):
        lines.append(_FP32)
    lines += [f'–          {reason}' for reason in _reasons(groups.values(), has_errors)]
    return '\n'.join(lines)


def _row(name, runs):
    good = [run for run in runs if run.error is None]
    count = str(len(runs)) if len(good) == len(runs) else f'{len(good)} of {len(runs)}'
    threshold = getattr(runs[0].config.scaling, 'threshold', None)
    skipped = '{:.0f}' if len(good) == 1 else '{:.1f}'
    return (
        name,
        count,
        mean_and_deviation([run.value for run in good], share),
        mean_and_deviation([run.loss for run in good], LOSS),
        mean_and_deviation([run.underflow.mean_unscaled for run in good], percent),
        percent(math.nan if threshold is None else threshold),
        mean_and_deviation([run.skipped for run in good], skipped.format),
        mean_and_deviation([run.seconds for run in good], '{:.1f}'.format),
        mean_and_deviation([run.underflow.mean for run in good], percent),
        mean_and_deviation([run.underflow.worst_layer for run in good], percent),
        mean_and_deviation([run.gradient_error for run in good], percent),
    )


def _reasons(groups, has_errors):
    """Yields why something in the table was not measured."""
    if any(all(run.error for run in runs) for runs in groups):
        yield 'no run of the method went through'
    if any(getattr(runs[0].config.scaling, 'threshold', None) is None for runs in groups):
        yield 'T: the method knows none'
    good = [run for runs in groups for run in runs if run.error is None]
    if any(math.isnan(run.underflow.mean) for run in good):
        yield 'underflow: a run ended before its report.interval'
    if has_errors and any(math.isnan(run.gradient_error) for run in good):
        yield 'gradient error: a run had no report.gradient_error, or ended before it'


def aligned(rows):
    """Returns lines of rows of strings in columns, the first to the left, the others to the right.

    The first row is the header, and gets a line under it.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    form = '  '.join([f'{{:<{widths[0]}}}', *(f'{{:>{width}}}' for width in widths[1:])])
    header, *lines = [form.format(*row) for row in rows]
    return [header, '  '.join('-' * width for width in widths), *lines]


def _mean(values):
    return math.fsum(values) / len(values) if values else math.nan
