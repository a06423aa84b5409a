"""What a run left in its folder, whole, half-finished or broken."""

import csv
import dataclasses
import math
import os
from typing import Optional

from experiments.config.errors import ConfigError
from experiments.reports import run_files
from experiments.reports.summary import Underflow, mean_error, mean_underflow

_FILES = {
    'config': run_files.CONFIG,
    'log': run_files.LOG,
    'scales': run_files.SCALES,
    'errors': run_files.ERRORS,
    'nonzero': run_files.NONZERO,
    'predictions': run_files.PREDICTIONS,
    'comparison': run_files.COMPARISON,
    'unbounded': run_files.UNBOUNDED,
    'result': run_files.RESULT,
}
_DEPTH = 3
_LONGEST = 200


@dataclasses.dataclass
class RunFolder:
    """A run as its folder tells it.

    Attributes:
        path (str): The folder.
        config (dict): The resolved config; empty if it cannot be read.
        log (list of dict): Chainer's log; empty if there is none.
        scales (list): What ScaleReport wrote; empty if it wrote nothing.
        underflow (~experiments.reports.summary.Underflow): Its means.
        errors (list): What GradientError wrote of parameters; empty if it was not asked for.
        nonzero (list): What it wrote of layers; likewise.
        predictions (list of ~experiments.reports.run_files.PredictionRow): What policies expected;
            likewise.
        comparison (list of ~experiments.reports.run_files.ComparisonRow): Other ways of scaling on
            the same weights; likewise.
        unbounded (list of ~experiments.reports.run_files.UnboundedRow): Scales without bounds.
        result (dict): How the run ended; empty while it has not.
        problem (str): Why it is not whole, or ``None``.
    """

    path: str
    config: dict = dataclasses.field(default_factory=dict)
    log: list = dataclasses.field(default_factory=list)
    scales: list = dataclasses.field(default_factory=list)
    underflow: Underflow = Underflow()
    errors: list = dataclasses.field(default_factory=list)
    nonzero: list = dataclasses.field(default_factory=list)
    predictions: list = dataclasses.field(default_factory=list)
    comparison: list = dataclasses.field(default_factory=list)
    unbounded: list = dataclasses.field(default_factory=list)
    result: dict = dataclasses.field(default_factory=dict)
    problem: Optional[str] = None

    @property
    def name(self):
        """str: The experiment's name and the run's."""
        return '/'.join(os.path.normpath(self.path).split(os.sep)[-2:])

    @property
    def metric(self):
        """str: The name of the task's metric: a key of the result."""
        return self.result.get('metric', 'accuracy')

    @property
    def best(self):
        """float: The highest value of the task's metric in the log; NaN if it was not evaluated."""
        key = f'validation/main/{self.metric}'
        return max(
            (e[key] for e in self.log if not math.isnan(e.get(key, math.nan))), default=math.nan
        )

    def last(self, key):
        """Returns the last value of a key in the log, or ``None``."""
        values = [entry[key] for entry in self.log if key in entry]
        return values[-1] if values else None

    @property
    def gradient_error(self):
        """float: The median over the parameters, averaged over iterations; NaN if unknown."""
        return mean_error(self.errors)

    @property
    def nonzero_share(self):
        """float: Of elements that rounding left, averaged over layers; NaN if unknown."""
        return sum(row.nonzero for row in self.nonzero) / len(self.nonzero or [math.nan])

    @property
    def seconds_per_iteration(self):
        """float: Time of an iteration, evaluations and measurements included, or ``None``."""
        iterations = self.last('iteration')
        return self.last('elapsed_time') / iterations if iterations else None


def find(paths):
    """Returns the folders of runs in paths, up to three levels down, each once.

    Those of a sweep come in the order of its config, and others in that of their names.

    Raises:
        ConfigError: If a path is no folder, or holds no run.
    """
    found = {}
    for path in paths:
        if not os.path.isdir(path):
            raise ConfigError(f'{path}: no such folder; allowed: folders of runs, such as results')
        below = [folder for folder in _folders(path, _DEPTH) if _is_run(folder)]
        if not below:
            raise ConfigError(f'{path}: no run in it; a run is a folder with a {run_files.CONFIG}')
        found.update(dict.fromkeys(map(os.path.normpath, below)))
    return list(found)


def read(path):
    """Returns the :class:`RunFolder` of a path; what is missing or damaged is its ``problem``."""
    run = RunFolder(path)
    damages = run_files.damages(path)
    for attribute, filename in _FILES.items():
        if filename not in damages:
            try:
                setattr(run, attribute, run_files.READERS[filename](os.path.join(path, filename)))
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                damages[filename] = run_files.reason(error)
    run.underflow = mean_underflow(run.scales)
    run.problem = _problem(run, damages)
    return run


def _problem(run, damages):
    problems = [f'{name} is damaged ({why})' for name, why in damages.items()]
    if not os.path.exists(os.path.join(run.path, run_files.LOG)) and run_files.LOG not in damages:
        problems.append('no log yet')
    error = os.path.join(run.path, run_files.ERROR)
    if os.path.isfile(error):
        with open(error, encoding='utf-8', errors='replace') as file:
            lines = [line.rstrip('\n') for line in file if line.strip()]
        reason = lines[-1] if lines else 'no reason given'
        problems = [f'failed: {reason[:_LONGEST]}', *problems]
    elif not os.path.exists(os.path.join(run.path, run_files.RESULT)):
        iterations = run.last('iteration') or 0
        problems = [f'not finished; the log ends at iteration {iterations}', *problems]
    return '; '.join(problems) or None


def _folders(path, depth):
    yield path
    if depth and not _is_run(path):
        ordered = _names_in_order(path)
        folders = {entry.name: entry.path for entry in os.scandir(path) if entry.is_dir()}
        for name in sorted(folders, key=lambda name: (ordered.get(name, len(ordered)), name)):
            yield from _folders(folders[name], depth - 1)


def _names_in_order(path):
    """Returns the places of a sweep's runs, by name, as the summary has them: as its config."""
    try:
        with open(os.path.join(path, run_files.SUMMARY), encoding='utf-8', newline='') as file:
            return {row['name']: place for place, row in enumerate(csv.DictReader(file))}
    except (OSError, ValueError, KeyError, csv.Error):  # none, or another's: the alphabet's order
        return {}


def _is_run(path):
    return os.path.isfile(os.path.join(path, run_files.CONFIG))
