"""The files that a run leaves in its folder, each read with a look at what it must hold.

They may be damaged, of an older version, or somebody else's. The functions raise OSError if a file
cannot be read, and ValueError if it is not what it must be; :func:`reason` says why.
"""

import csv
import json

from chainerlp.extensions import files
from experiments import tasks

import yaml

CONFIG, ERROR, LOG = 'config.yaml', 'error.txt', 'log'
RECORD, RESULT, SCALES = 'run.json', 'result.json', 'scales.csv'

_SECTIONS = ('dataset', 'model', 'scaling', 'train')
_LONGEST = 80
_MOST = 2**53  # the integers up to it are floats, too
_NOT_FINITE = ('nan', 'inf', '-inf')  # as a result has them


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
    try:
        rows = files.read_scales(path)
    except csv.Error as error:
        raise ValueError(reason(error)) from None
    for row in rows:
        _check(_is_count(row.iteration, 1) and _is_count(row.call, 0), 'no iteration, or no call')
        # A dollar sign would begin a formula in a picture.
        _check(row.layer.isprintable() and '$' not in row.layer, 'no name of a layer')
        rates = row.underflow, row.underflow_unscaled, row.overflow  # each may be NaN
        _check(not any(rate > 1 for rate in rates), 'a rate over 1')
        values = row.scale, row.total_scale, row.absmax, *rates
        _check(not any(value < 0 for value in values), 'a negative value')
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


def read_record(path):
    """Returns the record of a run's starts and of its files' checksums, a dict."""
    content = _read_json(path)
    _check(isinstance(content, dict), 'no mapping')
    starts, checksums = content.get('starts', []), content.get('checksums', {})
    _check(isinstance(starts, list) and all(isinstance(s, dict) for s in starts), 'no starts')
    _check(isinstance(checksums, dict), 'no checksums')
    return {**content, 'starts': starts, 'checksums': checksums}


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
