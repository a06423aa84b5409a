"""What a run left in its folder, whole, half-finished or broken."""

import csv
import dataclasses
import hashlib
import io
import math
import os
from typing import Optional
from urllib.parse import quote

from experiments.config import bounded_file
from experiments.config.errors import ConfigError, shortened
from experiments.reports import manifest, run_files
from experiments.reports.manifest import Manifest
from experiments.reports.summary import Underflow, mean_error, mean_underflow

import tqdm

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
_LONGEST_NAME = 80  # of a folder, so that a picture's file can be named after two
_PLAIN = ' =.,+-_@:()'


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
        is_verified (bool): Whether its manifest has what it takes to see that its files are whole
            and its own; not so in runs of older versions.
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
    is_verified: bool = True

    @property
    def name(self):
        """str: The experiment's name and the run's: those of its folders.

        Anything that Markdown, HTML or a formula might take for more than a name is written as in
        an URL.
        """
        return '/'.join(map(plain, os.path.abspath(self.path).split(os.sep)[-2:]))

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


def read_all(paths):
    """Returns the :class:`RunFolder` of each run that :func:`find` finds; a terminal sees a bar."""
    shown = tqdm.tqdm(find(paths), 'reading', unit='run', leave=False, disable=None)
    return [read(path) for path in shown]


def read(path):
    """Returns the :class:`RunFolder` of a path; what is missing or damaged is its ``problem``."""
    run = RunFolder(path)
    damages, noted = {}, Manifest()
    try:
        noted = manifest.read(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        damages[run_files.RECORD] = run_files.reason(error)
    for attribute, filename in _FILES.items():
        try:
            content = noted.read_file(path, filename)
            setattr(run, attribute, run_files.READERS[filename](content))
        except FileNotFoundError:
            if filename == run_files.CONFIG:
                damages[filename] = 'it is missing'
        except (OSError, ValueError) as error:
            damages[filename] = run_files.reason(error)
    run.underflow = mean_underflow(run.scales)
    run.is_verified = bool(noted.checksums)
    run.problem = _problem(run, noted, damages)
    return run


def _problem(run, noted, damages):
    problems = [f'{name} is damaged ({why})' for name, why in damages.items()]
    if noted.name not in (None, os.path.basename(os.path.abspath(run.path))):
        problems.append(f'it is the run {plain(noted.name)}, by its {run_files.RECORD}')
    if not run.log and run_files.LOG not in damages:
        problems.append('no log yet')
    try:
        problems = [f'failed: {_last_line(os.path.join(run.path, run_files.ERROR))}', *problems]
    except FileNotFoundError:
        if not run.result and run_files.RESULT not in damages:
            iterations = run.last('iteration') or 0
            problems = [f'not finished; the log ends at iteration {iterations}', *problems]
    except (OSError, ValueError) as error:
        problems.append(f'{run_files.ERROR} is damaged ({run_files.reason(error)})')
    return '; '.join(problems) or None


def _last_line(path):
    content = bounded_file.read(path, run_files.largest(path)).decode('utf-8', 'replace')
    lines = [line for line in content.splitlines() if line.strip()]
    return shortened(lines[-1] if lines else 'no reason given', _LONGEST)


def plain_path(path):
    """Returns the absolute path with each of its names as :func:`plain` has it."""
    return os.sep.join(map(plain, os.path.abspath(path).split(os.sep)))


def plain(name):
    """Returns a name in which nothing can be taken for more than a name; see `RunFolder.name`."""
    plain = ''.join(
        c if c.isalnum() or c in _PLAIN else quote(c, safe='', errors='surrogateescape')
        for c in name
    )
    if len(plain) > _LONGEST_NAME:
        digest = hashlib.sha256(plain.encode()).hexdigest()
        plain = f'{plain[: _LONGEST_NAME - 9]}...{digest[:6]}'
    return plain


def _folders(path, depth):
    yield path
    if depth and not _is_run(path):
        ordered = _names_in_order(path)
        folders = {entry.name: entry.path for entry in os.scandir(path) if entry.is_dir()}
        for name in sorted(folders, key=lambda name: (ordered.get(name, len(ordered)), name)):
            yield from _folders(folders[name], depth - 1)


def _names_in_order(path):
    """Returns the places of a sweep's runs, by name, as the summary has them: as its config."""
    path = os.path.join(path, run_files.SUMMARY)
    try:
        content = bounded_file.read(path, run_files.largest(path)).decode()
        rows = csv.DictReader(io.StringIO(content, newline=''))
        return {row['name']: place for place, row in enumerate(rows)}
    except (OSError, ValueError, KeyError, csv.Error):  # none, or another's: the alphabet's order
        return {}


def _is_run(path):
    """Returns whether a folder has what a run has, be it no file, or lets nobody see."""
    names = run_files.CONFIG, run_files.RECORD, run_files.RESULT
    has_any = any(os.path.lexists(os.path.join(path, name)) for name in names)
    return has_any or not _may_be_read(path)


def _may_be_read(path):
    return os.access(path, os.R_OK | os.X_OK)
