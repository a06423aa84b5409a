"""Runs of one experiment by their way of scaling: the means over the seeds, beside the authors'."""

import json

from experiments.config import loading
from experiments.reports import published
from experiments.reports.run_folder import plain
from experiments.reports.tables import mean_and_deviation, share

# In these runs of one setting may differ.
_SAME = ('name', 'seed', 'sweep', 'base', 'loading', 'report')


def group(runs):
    """Groups runs that differ in their seeds alone.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): Runs of one experiment.

    Returns:
        dict of str to list: By the way of scaling in the runs' names, followed by what else is
        another setting, where two would have one name.
    """
    groups = {}
    for run in runs:
        groups.setdefault(json.dumps(_setting(run), sort_keys=True), []).append(run)
    by_name = {}
    for alike in groups.values():
        by_name.setdefault(_way(alike[0]), []).append(alike)
    found = {}
    for name, settings in by_name.items():
        differing = loading.compare([_setting(alike[0]) for alike in settings])
        for index, alike in enumerate(settings):
            own = [plain(f'{key}={values[index]}') for key, values in differing.items()]
            found[', '.join([name, *own])] = alike
    return found


def _setting(run):
    setting = {key: value for key, value in run.config.items() if key not in _SAME}
    scaling = {k: v for k, v in setting.get('scaling', {}).items() if k != 'label'}
    return {**setting, 'scaling': scaling}


def _way(run):
    name = run.name.rpartition('/')[2]
    return name.rpartition('-seed=')[0] or name


def table(groups):
    """Makes a table of finished runs, the authors' number beside those of their setting.

    Args:
        groups (dict): As :func:`group` returns it.

    Returns:
        tuple: The header, and the rows, lists of str: way of scaling, number of runs, the last and
        the best evaluation of the metric, as means over the seeds with the standard deviation if
        there are several; and, if there is one, the authors' number.
    """
    metrics = ', '.join(dict.fromkeys(run.metric for runs in groups.values() for run in runs))
    numbers = [published.number(runs[0].config) for runs in groups.values()]
    header = ['scaling', 'runs', f'{metrics}, last', f'{metrics}, best']
    rows = [
        [
            name,
            str(len(runs)),
            mean_and_deviation([float(run.result[run.metric]) for run in runs], share),
            mean_and_deviation([run.best for run in runs], share),
        ]
        for name, runs in groups.items()
    ]
    if any(numbers):
        header.append('the authors’ best')
        rows = [[*row, number or ''] for row, number in zip(rows, numbers)]
    return header, rows
