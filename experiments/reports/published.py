"""The numbers that the authors published (arXiv 1910.12385 and IJCAI 2020/404)."""

# Task: (what is given, {way of scaling: number}); a way of scaling is a method, or a method and the
# value of its one knob.
_NUMBERS = {
    ('imagenet', 'resnet_imagenet', 18): (
        'top-1',
        {
            'adaptive': 71.48,
            ('adaptive', 1000): 71.29,
            'none': 71.24,
            ('fixed', 128): 71.39,
            ('dynamic', 10): 71.39,
        },
    ),
    ('imagenet', 'resnet_imagenet', 50): (
        'top-1',
        {
            'adaptive': 76.07,
            ('adaptive', 'max_scale', 128): 76.22,
            'none': 76.07,
            ('fixed', 128): 76.03,
            ('dynamic', 10): 76.12,
        },
    ),
    ('voc', 'ssd', 512, 8): (
        'mAP',
        {
            'adaptive': 79.27,
            ('adaptive', 10): 79.24,
            'fp32': 78.94,
            'none': 'diverged',
            ('fixed', 8): 78.83,
            ('fixed', 128): 78.71,
            ('fixed', 256): 78.36,
            ('dynamic', 10): 75.04,
        },
    ),
    ('voc', 'ssd', 512, 32): (
        'mAP',
        {'adaptive': 80.30, 'none': 'diverged', ('fixed', 128): 80.01, ('dynamic', 10): 80.17},
    ),
    ('voc', 'ssd', 300, 8): (
        'mAP',
        {'adaptive': 76.35, ('fixed', 4096): 76.23, ('dynamic', 10): 69.26},
    ),
    ('camvid', 'segnet'): ('mIoU', {'adaptive': 60.38, ('dynamic', 10): 60.21}),
}
_KNOBS = {'fixed': 'scale', 'dynamic': 'interval', 'adaptive': 'interval'}


def number(config):
    """Returns what the authors published for a run's task and way of scaling.

    Args:
        config (dict): The run's config.

    Returns:
        str: The number with what it is, such as ``'71.48 (top-1)'``; ``None`` if there is none.
    """
    metric, numbers = _NUMBERS.get(_task(config), (None, {}))
    scaling = config.get('scaling', {})
    method = scaling.get('method')
    value = scaling.get(_KNOBS.get(method))
    if method == 'adaptive' and (method, 'max_scale', scaling.get('max_scale')) in numbers:
        value = numbers[method, 'max_scale', scaling['max_scale']]
        return f'{value} ({metric})'
    found = numbers.get((method, value))
    if found is None and not (method == 'adaptive' and value not in (None, 1)):
        found = numbers.get(method)
    return None if found is None else f'{found} ({metric})'


def _task(config):
    dataset, model = (config.get(section, {}) for section in ('dataset', 'model'))
    task = [dataset.get('name'), model.get('name')]
    if model.get('name') == 'resnet_imagenet':
        task.append(model.get('depth'))
    if model.get('name') == 'ssd':
        task += [model.get('size'), config.get('train', {}).get('batch_size')]
    return tuple(task)
