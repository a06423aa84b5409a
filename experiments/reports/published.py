"""The numbers that the authors published (arXiv 1910.12385 and IJCAI 2020/404)."""

# Task: (what is given, {way of scaling: number}); a way of scaling is a method, or a method and the
# value of its one knob.
_NUMBERS = {
    ('imagenet', 'resnet18'): (
        'top-1',
        {
            'adaptive': 71.48,
            ('adaptive', 1000): 71.29,
            'none': 71.24,
            ('fixed', 128): 71.39,
            ('dynamic', 10): 71.39,
        },
    ),
    ('imagenet', 'resnet50'): (
        'top-1',
        {'adaptive': 76.07, 'none': 76.07, ('fixed', 128): 76.03, ('dynamic', 10): 76.12},
    ),
    ('voc', 'ssd512'): (
        'mAP, batch 8',
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
    ('voc', 'ssd300'): (
        'mAP, batch 8',
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
    task = tuple(config.get(section, {}).get('name') for section in ('dataset', 'model'))
    if task not in _NUMBERS:
        return None
    metric, numbers = _NUMBERS[task]
    scaling = config.get('scaling', {})
    method = scaling.get('method')
    value = scaling.get(_KNOBS.get(method))
    found = numbers.get((method, value))
    if found is None and not (method == 'adaptive' and value not in (None, 1)):
        found = numbers.get(method)
    return None if found is None else f'{found} ({metric})'
