"""The layers of a run as an axis of a picture: their order, their names, room for the labels."""

import math

_INCHES_A_LABEL = 0.14
_LONGEST_LABEL = 34


def order(reports):
    """Returns the uses of layers from input to output, over all reports.

    A use that some reports lack comes after the one that it follows where it is there.

    Args:
        reports (iterable of list): For each report its uses from input to output; a use is a pair
            of path and call.

    Returns:
        list of tuple: Each use once.
    """
    merged = []
    known = set()
    for report in reports:
        if known.issuperset(report):
            continue
        position = 0
        for use in report:
            if use in known:
                position = merged.index(use) + 1
            else:
                merged.insert(position, use)
                known.add(use)
                position += 1
    return merged


def names(uses):
    """Returns short names of uses, and the beginning of the paths that was left out.

    Args:
        uses (list of tuple): Pairs of path and call.

    Returns:
        tuple: A list of names, such as ``res/conv1`` or, for the second use of a link,
        ``res/conv1 #1``; and the path of what holds all of the layers, such as ``/predictor``, or
        an empty string.
    """
    parts = [path.split('/') for path, _ in uses]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    short = ['/'.join(p[shared:]) or '/' for p in parts]
    labels = [_shortened(n) + (f' #{call}' if call else '') for n, (_, call) in zip(short, uses)]
    return labels, '/'.join(parts[0][:shared]) if parts else ''


def height(count):
    """Returns how high a picture of so many layers is, in inches."""
    return min(max(2.2 + 0.2 * count, 3.2), 11.0)


def label(axes, uses, figure_height):
    """Puts the layers on the y axis, the input at the top, and names as many as there is room for.

    Args:
        axes (~matplotlib.axes.Axes): Layer number i lies at y = i.
        uses (list of tuple): Pairs of path and call.
        figure_height (float): In inches.
    """
    labels, holder = names(uses)
    count = len(labels)
    every = max(1, math.ceil(count * _INCHES_A_LABEL / (figure_height - 1.4)))
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks(range(0, count, every), labels[::every], fontsize=8)
    every_so_many = '' if every == 1 else f', 1 in {every} named'
    where = f' of {holder}' if holder else ''
    axes.set_ylabel(f'layer{where}, from input to output{every_so_many}', fontsize=9)


def _shortened(name):
    if len(name) <= _LONGEST_LABEL:
        return name
    kept = _LONGEST_LABEL // 2
    return f'{name[: kept - 1]}…{name[-kept:]}'
