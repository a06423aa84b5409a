"""The results in the shape of the paper's tables: a row a way of scaling, a column a training."""

import statistics

from experiments.reports import published


def rows(runs):
    """Makes the table of runs that differ in scaling and seed.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): Runs that are finished.

    Returns:
        tuple: The header, and the rows, of strings: way of scaling; for each experiment the mean of
        its metric over the seeds in percent, with the standard deviation if there are several; and,
        where the authors published numbers for one of them, these.
    """
    found, theirs = {}, {}
    for run in runs:
        row = _way(run)
        found.setdefault(row, {}).setdefault(_column(run), []).append(float(run.result[run.metric]))
        number = published.number(run.config)
        if number is not None:
            theirs.setdefault(row, {})[_column(run)] = number
    columns = list(dict.fromkeys(column for values in found.values() for column in values))
    with_theirs = [column for column in columns if any(column in row for row in theirs.values())]
    header = ['scaling', *columns, *(f"{column}, the authors' number" for column in with_theirs)]
    table = []
    for row, values in found.items():
        cells = [_mean(values.get(column, [])) for column in columns]
        cells += [theirs.get(row, {}).get(column, '') for column in with_theirs]
        table.append([row, *cells])
    return header, table


def _way(run):
    name = run.name.rpartition('/')[2]
    return name.rpartition('-seed=')[0] or name


def _column(run):
    return f'{run.config.get("name", run.name)}, {run.metric} %'


def _mean(values):
    if not values:
        return ''
    mean = f'{100 * statistics.fmean(values):.2f}'
    return mean if len(values) < 2 else f'{mean} ± {100 * statistics.stdev(values):.2f}'
