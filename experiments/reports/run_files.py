"""The files that a run leaves in its folder: each read with a look at what it must hold, checksums.

They may be damaged, of an older version, or somebody else's. The functions that read raise OSError
if a file cannot be read, and ValueError if it is not what it must be; :func:`reason` says why.
"""

import csv
import hashlib
import json
import os
import typing

from chainerlp import formats
from chainerlp.extensions import files
from experiments import tasks

import yaml

CONFIG, ERROR, LOG = 'config.yaml', 'error.txt', 'log'
RECORD, RESULT, SCALES = 'run.json', 'result.json', 'scales.csv'
ERRORS, NONZERO, PREDICTIONS = 'gradient_error.csv', 'nonzero.csv', 'predictions.csv'
COMPARISON, UNBOUNDED = 'comparison.csv', 'unbounded.csv'
SUMMARY = 'summary.csv'  # of a sweep, beside its runs' folders

_BLOCK = 2**20  # bytes
_SECTIONS = ('dataset', 'model', 'scaling', 'train')
_LONGEST = 80
_MOST = 2**53  # the integers up to it are floats, too
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


class _Loader(yaml.SafeLoader):
    """YAML's safe subset without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise ValueError('an alias, which no run writes')
        return super().compose_node(parent, index)


def read_config(path):
    """Returns a resolved config, a dict; that of another version is one, too."""
    with open(path, encoding='utf-8') as file:
        try:
            content = yaml.load(file, _Loader)
            json.dumps(content, ensure_ascii=False).encode()  # no dates, no halves of characters
        except Exception as error:  # what PyYAML raises is nearly anything
            raise ValueError(reason(error)) from None
    _check(isinstance(content, dict), 'no mapping')
    for name in _SECTIONS:
        _check(isinstance(content.get(name, {}), dict), f'{name} is no mapping')
    threshold = content.get('scaling', {}).get('threshold')
    if threshold is not None:
        _check(_is_number(threshold) and 0 < threshold < 1, 'scaling.threshold is no rate')
    _check(_is_number(content.get('scaling', {}).get('scale', 1)), 'scaling.scale is no number')
    _check(_is_count(content.get('seed', 0), 0), 'seed is no count')
    return content


def read_log(path):
    """Returns Chainer's log, a list of at least one dict from key to number."""
    entries = _read_json(path)
    _check(isinstance(entries, list) and entries, 'no list of entries')
    for entry in entries:
        _check(isinstance(entry, dict), 'an entry is no mapping')
        _check(all(map(_is_number, entry.values())), 'a value is no number')
        shares = [entry[key] for key in tasks.titles() if key in entry]
        _check(not any(share < 0 or share > 1 for share in shares), 'a metric is no share')
        _check(_is_count(entry.get('iteration'), 1), 'no iteration')
        _check(entry.get('elapsed_time', -1) >= 0, 'no elapsed time')
    return entries


def read_scales(path):
    """Returns a list of :class:`~chainerlp.extensions.files.Row`, without incomplete ones."""
    rows = _read_rows(path, files.Row)
    for row in rows:
        rates = row.underflow, row.underflow_unscaled, row.overflow  # each may be NaN
        _check(not any(rate > 1 for rate in rates), 'a rate over 1')
        values = row.scale, row.total_scale, row.absmax, *rates
        _check(not any(value < 0 for value in values), 'a negative value')
    return rows


def read_errors(path):
    """Returns a list of :class:`~chainerlp.extensions.files.ErrorRow`."""
    rows = _read_rows(path, files.ErrorRow)
    _check(not any(row.error < 0 for row in rows), 'a negative error')
    return rows


def read_nonzero(path):
    """Returns a list of :class:`~chainerlp.extensions.files.NonzeroRow`."""
    rows = _read_rows(path, files.NonzeroRow)
    for row in rows:
        shares = row.nonzero, row.nonzero_float32  # each may be NaN
        _check(not any(share < 0 or share > 1 for share in shares), 'no share')
    return rows


def read_predictions(path):
    """Returns a list of :class:`PredictionRow`."""
    rows = _read_rows(path, PredictionRow)
    for row in rows:
        rates = row.gaussian, row.per_sample, row.underflow
        _check(all(0 <= rate <= 1 for rate in rates), 'no rate')
        _check(not (row.wanted <= 0 or row.largest <= 0), 'no scale')
    return rows


def read_comparison(path):
    """Returns a list of :class:`ComparisonRow`."""
    rows = _read_rows(path, ComparisonRow)
    for row in rows:
        _check(row.format in formats.NAMES, 'no format')
        _check(not (row.scale <= 0 or row.error < 0 or row.worst < 0), 'no scale or no error')
    return rows


def read_unbounded(path):
    """Returns a list of :class:`UnboundedRow`."""
    rows = _read_rows(path, UnboundedRow)
    _check(not any(row.unbounded <= 0 or row.scale <= 0 for row in rows), 'no scale')
    return rows


def _read_rows(path, kind):
    try:
        rows = files.read(path, kind)
    except csv.Error as error:
        raise ValueError(reason(error)) from None
    for row in rows:
        iteration, name, *_ = row
        is_call = _is_count(getattr(row, 'call', 0), 0)
        _check(_is_count(iteration, 1) and is_call, 'no iteration, or no call')
        # A dollar sign would begin a formula in a picture.
        _check(name.isprintable() and '$' not in name, 'no name of a layer or a parameter')
    return rows


def read_result(path):
    """Returns how a run ended, a dict, as :meth:`experiments.reports.summary.Result.content`."""
    content = _read_json(path)
    _check(isinstance(content, dict), 'no mapping')
    metric = content.get('metric')
    _check(isinstance(metric, str) and f'validation/main/{metric}' in tasks.titles(), 'no metric')
    for key in (metric, 'loss'):
        value = content.get(key)
        _check(_is_number(value) or value in _NOT_FINITE, f'{key} is no number')
    _check(not (float(content[metric]) < 0 or float(content[metric]) > 1), f'{metric} is no share')
    _check(_is_count(content.get('skipped'), 0), 'skipped is no count')
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
"""dict: What reads each file that a run may leave; of a finished run each has a checksum."""


def read_record(path):
    """Returns the record of a run's starts and of its files' checksums, a dict."""
    content = _read_json(path)
    _check(isinstance(content, dict), 'no mapping')
    starts, checksums = content.get('starts', []), content.get('checksums', {})
    _check(isinstance(starts, list) and all(isinstance(s, dict) for s in starts), 'no starts')
    _check(isinstance(checksums, dict), 'no checksums')
    return {**content, 'starts': starts, 'checksums': checksums}


def checksums(folder, result):
    """Returns the SHA-256 of each file of a finished run, a dict by the file's name.

    ``result`` is the text of the result, which is written after its checksum is.
    """
    paths = {name: os.path.join(folder, name) for name in READERS}
    found = {name: _sha256(path) for name, path in paths.items() if os.path.exists(path)}
    return {**found, RESULT: hashlib.sha256(result.encode()).hexdigest()}


def damages(folder):
    """Returns why a run's files are damaged, a dict by the file's name.

    It is empty for a run that has not ended, or was made before there were checksums. A result that
    is missing is no damage: the run may have been killed before it was written.
    """
    try:
        recorded = read_record(os.path.join(folder, RECORD))['checksums']
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return {RECORD: reason(error)}
    found = {}
    for name in READERS:
        try:
            if name in recorded and _sha256(os.path.join(folder, name)) != recorded[name]:
                found[name] = f'it does not fit its checksum in {RECORD}'
        except FileNotFoundError:
            if name != RESULT:
                found[name] = 'it is missing'
        except OSError as error:
            found[name] = reason(error)
    return found


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def reason(error):
    """Returns why a file cannot be read, a line, given the error that it gave."""
    words = getattr(error, 'strerror', None) or ' '.join(str(error).split())
    return words[:_LONGEST] or type(error).__name__


def _read_json(path):
    with open(path, encoding='utf-8') as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(reason(error)) from None


def _check(holds, what):
    if not holds:
        raise ValueError(what)


def _is_count(value, least):
    return type(value) is int and least <= value <= _MOST


def _is_number(value):
    return type(value) is float or (type(value) is int and -_MOST <= value <= _MOST)
