"""The files that a run leaves in its folder, each read with a look at what it must hold.

They may be damaged, of an older version, or somebody else's. The functions are given the bytes of a
file, and raise ValueError if it is not what it must be; :func:`reason` says why.
"""

import json
import re
import typing

from chainerlp import formats
from chainerlp.extensions import files
from experiments import tasks
from experiments.config import bounded_yaml
from experiments.config.errors import shortened

CONFIG, ERROR, LOG = 'config.yaml', 'error.txt', 'log'
RECORD, RESULT, SCALES = 'run.json', 'result.json', 'scales.csv'
ERRORS, NONZERO, PREDICTIONS = 'gradient_error.csv', 'nonzero.csv', 'predictions.csv'
COMPARISON, UNBOUNDED = 'comparison.csv', 'unbounded.csv'
SUMMARY = 'summary.csv'  # of a sweep, beside its runs' folders

_SECTIONS = ('dataset', 'model', 'scaling', 'train')
_LONGEST = 80
_LARGEST, _LARGEST_TABLE = 2**26, 2**30  # bytes
_MOST = 2**53  # the integers up to it are floats, too
_NAMED = 'name', 'method', 'dtype', 'format', 'gradient_format', 'compute', 'variance'
_NOT_FINITE = ('nan', 'inf', '-inf')  # as a result has them


class PredictionRow(typing.NamedTuple):
    """What policies expect of one layer's gradient in one iteration, and what there is.

    Attributes:
        iteration (int): The iteration.
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        gaussian (float): The rate of underflow that :class:`~chainerlp.policies.Adaptive` predicts
            at the scales that were applied.
        per_sample (float): That of :class:`~chainerlp.policies.PerSample`.
        underflow (float): The share of the elements that rounding made zero.
        wanted (float): The smallest total scale, a power of two, at which that is at most T; NaN if
            it is at any (most elements are zeros), or if an element is not finite.
        largest (float): The largest total scale, a power of two, at which nothing overflows; NaN
            if all elements are zeros, or one is not finite.
    """

    iteration: int
    layer: str
    call: int
    gaussian: float
    per_sample: float
    underflow: float
    wanted: float
    largest: float


class UnboundedRow(typing.NamedTuple):
    """What a policy would choose for one layer in one iteration without its bounds.

    Attributes:
        iteration (int): The iteration.
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        unbounded (float): α without the bounds of the config and without rounding.
        scale (float): α, as it was applied.
    """

    iteration: int
    layer: str
    call: int
    unbounded: float
    scale: float


class ComparisonRow(typing.NamedTuple):
    """The gradient error of one way of scaling in one iteration of a float32 training.

    Attributes:
        iteration (int): The iteration.
        way (str): How gradients were scaled.
        format (str): What those were rounded to that layers pass down.
        scale (float): The constant, if it was one, or NaN.
        error (float): The median over the parameters.
        worst (float): The largest.
    """

    iteration: int
    way: str
    format: str
    scale: float
    error: float
    worst: float


def largest(name):
    """Returns how many bytes a file may have, by its name."""
    return _LARGEST_TABLE if name.endswith('.csv') else _LARGEST


def read_config(content):
    """Returns a resolved config, a dict; that of another version is one, too."""
    content = bounded_yaml.parse(content)
    try:
        json.dumps(content)
    except TypeError:  # dates, sets, endless lists
        raise ValueError('a value that no config has') from None
    _check(isinstance(content, dict), 'no mapping')
    for name in _SECTIONS:
        _check(isinstance(content.get(name, {}), dict), f'{name} is no mapping')
    threshold = content.get('scaling', {}).get('threshold')
    if threshold is not None:
        _check(_is_number(threshold) and 0 < threshold < 1, 'scaling.threshold is no rate')
    _check(_is_number(content.get('scaling', {}).get('scale', 1)), 'scaling.scale is no number')
    _check(_is_count(content.get('seed', 0), 0), 'seed is no count')
    _check(_is_plain(content), 'a key or a name that no config has')
    return content


def _is_plain(value):
    """Returns whether keys, names and methods, which stand in tables and pictures, are words."""
    if isinstance(value, dict):
        names = [text for key, text in value.items() if key in _NAMED and text is not None]
        words = [*value, *names]
        is_plain = all(isinstance(w, str) and re.fullmatch(r'[\w.-]+', w, re.A) for w in words)
        return is_plain and all(map(_is_plain, value.values()))
    return not isinstance(value, list) or all(map(_is_plain, value))


def read_log(content):
    """Returns Chainer's log, a list of at least one dict from key to number."""
    entries = read_json(content)
    _check(isinstance(entries, list) and entries, 'no list of entries')
    for entry in entries:
        _check(isinstance(entry, dict), 'an entry is no mapping')
        _check(all(map(_is_number, entry.values())), 'a value is no number')
        shares = [entry[key] for key in tasks.titles() if key in entry]
        _check(not any(share < 0 or share > 1 for share in shares), 'a metric is no share')
        _check(_is_count(entry.get('iteration'), 1), 'no iteration')
        _check(entry.get('elapsed_time', -1) >= 0, 'no elapsed time')
    return entries


def read_scales(content):
    """Returns a list of :class:`~chainerlp.extensions.files.Row`, without incomplete ones."""
    rows = _read_rows(content, files.Row)
    for row in rows:
        rates = row.underflow, row.underflow_unscaled, row.overflow  # each may be NaN
        _check(not any(rate > 1 for rate in rates), 'a rate over 1')
        values = row.scale, row.total_scale, row.absmax, *rates
        _check(not any(value < 0 for value in values), 'a negative value')
    return rows


def read_errors(content):
    """Returns a list of :class:`~chainerlp.extensions.files.ErrorRow`."""
    rows = _read_rows(content, files.ErrorRow)
    _check(not any(row.error < 0 for row in rows), 'a negative error')
    return rows


def read_nonzero(content):
    """Returns a list of :class:`~chainerlp.extensions.files.NonzeroRow`."""
    rows = _read_rows(content, files.NonzeroRow)
    for row in rows:
        shares = row.nonzero, row.nonzero_float32  # each may be NaN
        _check(not any(share < 0 or share > 1 for share in shares), 'no share')
    return rows


def read_predictions(content):
    """Returns a list of :class:`PredictionRow`."""
    rows = _read_rows(content, PredictionRow)
    for row in rows:
        rates = row.gaussian, row.per_sample, row.underflow
        _check(all(0 <= rate <= 1 for rate in rates), 'no rate')
        _check(not (row.wanted <= 0 or row.largest <= 0), 'no scale')
    return rows


def read_comparison(content):
    """Returns a list of :class:`ComparisonRow`."""
    rows = _read_rows(content, ComparisonRow)
    for row in rows:
        _check(row.format in formats.NAMES, 'no format')
        _check(not (row.scale <= 0 or row.error < 0 or row.worst < 0), 'no scale or no error')
    return rows


def read_unbounded(content):
    """Returns a list of :class:`UnboundedRow`."""
    rows = _read_rows(content, UnboundedRow)
    _check(not any(row.unbounded <= 0 or row.scale <= 0 for row in rows), 'no scale')
    return rows


def _read_rows(content, kind):
    rows = files.parse(content, kind)
    for row in rows:
        iteration, name, *_ = row
        is_call = _is_count(getattr(row, 'call', 0), 0)
        _check(_is_count(iteration, 1) and is_call, 'no iteration, or no call')
        # A dollar sign would begin a formula in a picture.
        _check(name.isprintable() and '$' not in name, 'no name of a layer or a parameter')
    return rows


def read_result(content):
    """Returns how a run ended, a dict, as :meth:`experiments.reports.summary.Result.content`."""
    content = read_json(content)
    _check(isinstance(content, dict), 'no mapping')
    metric = content.get('metric')
    _check(isinstance(metric, str) and f'validation/main/{metric}' in tasks.titles(), 'no metric')
    for key in (metric, 'loss'):
        value = content.get(key)
        _check(_is_number(value) or value in _NOT_FINITE, f'{key} is no number')
    _check(not (float(content[metric]) < 0 or float(content[metric]) > 1), f'{metric} is no share')
    _check(_is_count(content.get('skipped'), 0), 'skipped is no count')
    _check(isinstance(content.get('incomplete', ''), str), 'incomplete is no text')
    return content


READERS = {
    CONFIG: read_config,
    LOG: read_log,
    SCALES: read_scales,
    ERRORS: read_errors,
    NONZERO: read_nonzero,
    PREDICTIONS: read_predictions,
    COMPARISON: read_comparison,
    UNBOUNDED: read_unbounded,
    RESULT: read_result,
}
"""dict: What reads each file that a run may leave."""


def reason(error):
    """Returns why a file cannot be read, a line, given the error that it gave."""
    return shortened(getattr(error, 'strerror', None) or str(error), _LONGEST) or 'no reason'


def read_json(content):
    """Returns the value that JSON stands for."""
    try:
        return json.loads(content.decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(reason(error)) from None


def _check(holds, what):
    if not holds:
        raise ValueError(what)


def _is_count(value, least):
    return type(value) is int and least <= value <= _MOST


def _is_number(value):
    return type(value) is float or (type(value) is int and -_MOST <= value <= _MOST)
