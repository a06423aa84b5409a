"""The study of loss scaling: from finished runs to tables, and to a page whose numbers are theirs.

``write`` reads the runs and leaves ``runs.csv``, ``comparison.csv``, ``predictions.csv`` and
``wanted.csv`` beside the pictures. ``render`` fills a template with what these files say, so that
every number of the page can be found in them.
"""

import collections
import math
import os
import re
import statistics

from chainerlp import formats, policies
from chainerlp.extensions.files import atomic_write, make_folder, write_text
from experiments.config.errors import ConfigError
from experiments.reports import run_folder, study_figures, study_files, study_tables, windows
from experiments.reports.study_figures import late, task_of
from experiments.reports.study_files import ComparedWay, PredictionRatio, StudyRun, Wish

PAGE, FOLDER, TEMPLATE = 'study.md', 'study', 'template.md'
T = policies.PerSample().threshold
_PLACE = re.compile(r'\{\{ *([^{}]+?) *\}\}')
_TABLES_ALONE = ''.join(
    f'## {title}\n\n{{{{ {name} }}}}\n\n' for name, title in study_tables.TABLES.items()
)
_LEAST_RATE = 1e-4  # what underflows less often is too seldom to compare a prediction with
_FORMATS = ('float16', 'float8_e5m2', 'float8_e4m3')


def write(paths, folder):
    """Reads the runs of a study, and writes its files, its pictures and its page.

    Args:
        paths (list of str): Folders of runs, or folders that hold some.
        folder (str): Where ``study.md`` goes, and the folder ``study`` with all else. A
            ``study/template.md`` in it is filled in; without one the page has the tables alone.

    Returns:
        str: The path of the page.

    Raises:
        ConfigError: If no run is finished.
    """
    found = run_folder.read_all(paths)
    runs = sorted((run for run in found if run.problem is None), key=_place)
    twice = [name for name, count in collections.Counter(r.name for r in runs).items() if count > 1]
    if twice:
        raise ConfigError(f'{paths[0]}: given {twice[0]} in two folders, allowed: each run once')
    if not runs:
        raise ConfigError(f'{paths[0]}: no run in it is finished; the first: {found[0].problem}')
    below = os.path.join(folder, FOLDER)
    make_folder(below)
    for kind, rows in (
        (StudyRun, map(_summary, runs)),
        (ComparedWay, _comparisons(runs)),
        (PredictionRatio, _predictions(runs)),
        (Wish, _wishes(runs)),
    ):
        study_files.write(below, kind, rows)
    compared = study_tables.windows_of(study_files.read(below, ComparedWay))
    for name, figure in study_figures.draw(runs, compared, T):
        with atomic_write(os.path.join(below, f'{name}.png')) as unfinished:
            figure.savefig(unfinished)
    path = os.path.join(folder, PAGE)
    write_text(path, render(folder))
    return path


def render(folder):
    """Returns the page that belongs to the files in a folder; see :func:`write`."""
    below = os.path.join(folder, FOLDER)
    values = study_tables.values(*(study_files.read(below, kind) for kind in study_files.FILES))
    template = _TABLES_ALONE
    if os.path.exists(os.path.join(below, TEMPLATE)):
        with open(os.path.join(below, TEMPLATE), encoding='utf-8') as file:
            template = file.read()
    return _PLACE.sub(lambda match: values.get(match.group(1), '(not measured)'), template)


def _place(run):
    names = task_of(run), windows.format_of(run), windows.way_of(run)
    return *study_tables.place(*names), run.config.get('seed', 0)


def _summary(run):
    by_layer = collections.defaultdict(list)
    for row in late(run.scales):
        by_layer[row.layer, row.call].append(row.underflow)
    over = [row.underflow > T for row in run.scales]
    return StudyRun(
        experiment=task_of(run),
        way=windows.way_of(run),
        format=windows.format_of(run),
        scale=windows.scale_of(run),
        seed=run.config.get('seed', 0),
        value=float(run.result[run.metric]),
        loss=float(run.result['loss']),
        error=run.gradient_error,
        underflow=run.underflow.mean,
        unscaled=run.underflow.mean_unscaled,
        late_worst=max(map(statistics.fmean, by_layer.values()), default=math.nan),
        over=statistics.fmean(over) if over else math.nan,
        skipped=run.result['skipped'],
    )


def _comparisons(runs):
    for run in runs:
        errors = collections.defaultdict(list)
        for row in run.comparison:
            errors[row.format, row.way, str(row.scale)].append(row.error)
        for (format, way, scale), found in errors.items():
            task = task_of(run).removesuffix(study_tables.SEEDS)
            known = [error for error in found if not math.isnan(error)]
            error = statistics.fmean(known) if known else math.nan
            yield ComparedWay(task, format, way, float(scale), run.config.get('seed', 0), error)


def _predictions(runs):
    """Yields how right predictions of what unscaled runs lose are, by task and format."""
    cells = collections.defaultdict(list)
    for run in study_figures.unscaled(study_figures.swept(runs)):
        rows = [row for row in run.predictions if row.underflow >= _LEAST_RATE]
        cells[task_of(run), windows.format_of(run)] += rows
    for (task, format), rows in cells.items():
        for criterion in ('gaussian', 'per_sample'):
            ratios = sorted(getattr(row, criterion) / row.underflow for row in rows)
            if ratios:
                tenth = (len(ratios) - 1) // 10
                ends = ratios[tenth], ratios[-1 - tenth]
                median = statistics.median(ratios)
                yield PredictionRatio(task, format, criterion, len(ratios), median, *ends)


def _wishes(runs):
    """Yields the total scales that the layers of float32 runs would want, late in them."""
    for task, run in study_figures.wishing(runs).items():
        largest = collections.defaultdict(float)
        for row in late(run.scales):
            largest[row.layer, row.call] = max(largest[row.layer, row.call], row.absmax)
        for (layer, call), (wanted, _) in study_figures.wishes(run).items():
            for format in map(formats.get, _FORMATS if largest[layer, call] > 0 else ()):
                # Where a format begins is a power of two: what is wanted moves along.
                begins = format.underflow_threshold / formats.FLOAT16.underflow_threshold
                allowed = 2.0 ** math.floor(math.log2(format.largest / largest[layer, call]))
                yield Wish(task, format.name, layer, call, wanted * begins, allowed)
