"""The authors' published numbers, and a table of runs in the shape of theirs.

The numbers are of arXiv 1910.12385 and IJCAI 2020/404.
"""

import statistics

_METRICS = {'imagenet': 'top-1', 'voc': 'mAP', 'camvid': 'mIoU'}
# Task: {way of scaling: number}; a way of scaling is a method, or a method and the value of its one
# knob.
_NUMBERS = {
    ('imagenet', 'resnet_imagenet', 18): {
        'adaptive': 71.48,
        ('adaptive', 1000): 71.29,
        'none': 71.24,
        ('fixed', 128): 71.39,
        ('dynamic', 10): 71.39,
    },
    ('imagenet', 'resnet_imagenet', 50): {
        'adaptive': 76.07,
        ('adaptive', 'max_scale', 128): 76.22,
        'none': 76.07,
        ('fixed', 128): 76.03,
        ('dynamic', 10): 76.12,
    },
    ('voc', 'ssd', 512, 8): {
        'adaptive': 79.27,
        ('adaptive', 10): 79.24,
        'fp32': 78.94,
        'none': 'diverged',
        ('fixed', 8): 78.83,
        ('fixed', 128): 78.71,
        ('fixed', 256): 78.36,
        ('dynamic', 10): 75.04,
    },
    ('voc', 'ssd', 512, 32): {
        'adaptive': 80.30,
        'none': 'diverged',
        ('fixed', 128): 80.01,
        ('dynamic', 10): 80.17,
    },
    ('voc', 'ssd', 300, 8): {'adaptive': 76.35, ('fixed', 4096): 76.23, ('dynamic', 10): 69.26},
    ('camvid', 'segnet'): {'adaptive': 60.38, ('dynamic', 10): 60.21},
}
_KNOBS = {'fixed': 'scale', 'dynamic': 'interval'}
# What the authors' adaptive runs have besides the interval; another knob has no number of theirs.
_BOUNDS = {'imagenet': (16, 1024), 'voc': (16, 1024), 'camvid': (65504, 65504)}
_OTHER_BOUNDS = (128, 4096)


def number(config):
    """Returns what the authors published for a run's task and way of scaling, given its config.

    It is a str with what it is, such as ``'71.48 (top-1, %)'``; ``None`` if there is none, as for a
    training on some of the data, or of a smaller model.
    """
    numbers = _look_up(_NUMBERS, _task(config))
    found = _look_up(numbers, _way(config)) if numbers and _is_full(config) else None
    return None if found is None else f'{found} ({_METRICS[config["dataset"]["name"]]}, %)'


def _look_up(table, wanted):
    """Returns a value of a dict by a key that may hold anything a config can, lists included."""
    return next((value for key, value in table.items() if key == wanted), None)


def _task(config):
    dataset, model = (config.get(section, {}) for section in ('dataset', 'model'))
    task = [dataset.get('name'), model.get('name')]
    if model.get('name') == 'resnet_imagenet':
        task.append(model.get('depth'))
    if model.get('name') == 'ssd':
        task += [model.get('size'), config.get('train', {}).get('batch_size')]
    return tuple(task)


def _is_full(config):
    """Returns whether data and model are those of the papers, and none of them made smaller."""
    dataset, model = config['dataset'], config['model']
    key, full = {
        'imagenet': ('size', [224]),
        'voc': ('test', [['VOC2007/test'], ('VOC2007/test',)]),
        'camvid': ('crop', [None]),
    }[dataset['name']]
    return (
        (dataset.get('train_size'), dataset.get('test_size')) == (None, None)
        and dataset.get(key, full[0]) in full
        and (model.get('width', 1), model.get('channels', 64)) == (1, 64)
    )


def _way(config):
    """Returns the key of a way of scaling in the table, or ``None`` if it is none of theirs."""
    scaling = config.get('scaling', {})
    method = scaling.get('method')
    if method in ('fp32', 'none'):
        return method
    if method != 'adaptive':
        return method, scaling.get(_look_up(_KNOBS, method))
    interval = scaling.get('interval', 1)
    bounds = scaling.get('max_scale', 16), scaling.get('max_total_scale', 1024)
    if scaling.get('threshold', 1e-3) != 1e-3:
        return None
    if bounds == _BOUNDS[config['dataset']['name']]:
        return method if interval == 1 else (method, interval)
    return (method, 'max_scale', 128) if bounds == _OTHER_BOUNDS and interval == 1 else None


def table(runs):
    """Makes the paper's table of finished runs: a row a way of scaling, a column an experiment.

    Returns:
        tuple: The header, and the rows, of strings: way of scaling; for each experiment the mean of
        its metric over the seeds in percent, with the standard deviation if there are several; and,
        where the authors published numbers for one of them, these.
    """
    found, theirs = {}, {}
    for run in runs:
        row = _name_of_scaling(run)
        found.setdefault(row, {}).setdefault(_column(run), []).append(float(run.result[run.metric]))
        published = number(run.config)
        if published is not None:
            theirs.setdefault(row, {})[_column(run)] = published
    columns = list(dict.fromkeys(column for values in found.values() for column in values))
    with_theirs = [column for column in columns if any(column in row for row in theirs.values())]
    header = ['scaling', *columns, *(f"{column}, the authors' number" for column in with_theirs)]
    table_rows = []
    for row, values in found.items():
        cells = [_mean(values.get(column, [])) for column in columns]
        cells += [theirs.get(row, {}).get(column, '') for column in with_theirs]
        table_rows.append([row, *cells])
    return header, table_rows


def _name_of_scaling(run):
    name = run.name.rpartition('/')[2]
    return name.rpartition('-seed=')[0] or name


def _column(run):
    return f'{run.config.get("name", run.name)}, {run.metric} %'


def _mean(values):
    if not values:
        return ''
    mean = f'{100 * statistics.fmean(values):.2f}'
    return mean if len(values) < 2 else f'{mean} ± {100 * statistics.stdev(values):.2f}'
