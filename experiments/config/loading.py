"""Config files: read with those they build on and the command line's overrides, and compared.

``base: other.yaml`` names the config that another builds on, by a path from the config's own
folder. What a config does not say is taken from its base: mappings are merged key by key, and
anything else replaces the base's value. Two exceptions: a mapping of another kind (another ``name``
or ``method``) replaces the base's as a whole, and a length in epochs replaces one in iterations,
and the other way round.
"""

import copy
import dataclasses
import os

from experiments.config import Config, bounded_file, bounded_yaml
from experiments.config.errors import describe, located, shortened, shown
from experiments.config.section import UNITS

import pydantic
import yaml

_KINDS = ('name', 'method')
_MOST_BASES = 8
_LONGEST_PATH = 160


def load(path, overrides=()):
    """Loads a config.

    Args:
        path (str): The YAML file.
        overrides (list of str): ``key.path=value``, the later one wins.

    Returns:
        Config: The config.

    Raises:
        ConfigError: If the file, or its base, cannot be read or is not a valid config.
    """
    overrides = [_Override.parse(text) for text in overrides]
    chain = _read_chain(path)
    content = {}
    for _, own in reversed(chain):
        content = _merged(content, own)
    for override in overrides:
        _apply(override, content, path)
    try:
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        key, message = describe(error, Config)
        blamed = [o for o in overrides if all(a == b for a, b in zip(o.path, key))]
        where = f'{path}, {blamed[-1].name}' if blamed else _source_of(chain, key)
        raise located(where, message) from None


def dump(config):
    """Returns a config as YAML; :func:`load` makes the same config of it."""
    content = config.model_dump(mode='python', exclude_none=True)
    return yaml.safe_dump(content, sort_keys=False)


def compare(contents):
    """Finds the keys in which configs, nested mappings, differ.

    Returns:
        dict: For each dotted key whose value is not the same in all, the values in the configs'
        order; ``None`` where a config lacks the key.
    """
    flat = [dict(_flatten(content)) for content in contents]
    keys = dict.fromkeys(key for content in flat for key in content)
    rows = {key: [content.get(key) for content in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _flatten(content, prefix=''):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _read_chain(path):
    """Reads a config, its base, the base's base and so on.

    Returns a list of pairs, the config's own first: a path, and what the file says besides its
    base.
    """
    chain = []
    while path is not None:
        names = [name for name, _ in chain]
        way = _way([*names, path])
        if any(os.path.realpath(name) == os.path.realpath(path) for name in names):
            raise located(way, 'base: a config cannot build on itself')
        if len(chain) > _MOST_BASES:
            raise located(way, f'base: a config cannot build on more than {_MOST_BASES} others')
        content = _read(path, way)
        base = content.pop('base', None)
        chain.append((path, content))
        if base is not None and not isinstance(base, str):
            raise located(way, f'base: given {shown(base)}, allowed: the path of a config file')
        path = None if base is None else os.path.join(os.path.dirname(path), base)
    return chain


def _read(path, way):
    try:
        with bounded_file.open_file(path) as file:
            content = bounded_yaml.parse(file.read(bounded_yaml.LARGEST + 1))
    except OSError as error:
        raise located(way, error.strerror) from None
    except ValueError as error:
        raise located(way, str(error)) from None
    if not isinstance(content, dict):
        keys = ', '.join(Config.model_fields)
        raise located(way, f'given {shown(content)}, allowed: a mapping with the keys {keys}')
    return content


def _way(paths):
    """Names a file by the way to it from the first config: ``small.yaml -> full.yaml``."""
    first, *bases = paths
    bases = [shortened(base, _LONGEST_PATH) for base in bases]
    return ' -> '.join([first, *(bases if len(bases) <= 2 else ['...', *bases[-2:]])])


def _source_of(chain, key):
    """Names the file that a key, a list of its parts, is from; the first if none has it."""
    for index, (_, content) in enumerate(chain):
        if _has(content, key):
            return _way([path for path, _ in chain[: index + 1]])
    return chain[0][0]


def _has(content, key):
    for part in key:
        if isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict) and part in content:
            content = content[part]
        else:
            return False
    return True


def _merged(base, own):
    merged = dict(base)
    for key, value in own.items():
        of_base = merged.get(key)
        both = isinstance(value, dict) and isinstance(of_base, dict)
        if both and all(of_base.get(kind) == value.get(kind, of_base.get(kind)) for kind in _KINDS):
            value = _merged(of_base, value)
        merged[key] = value
    _drop_other_unit(merged, own)
    return merged


def _drop_other_unit(section, given):
    """Removes a length in epochs where one in iterations was given, and the other way round.

    ``section`` is a dict or list in which the keys ``given`` were set.
    """
    units = [unit for unit in UNITS if unit in given and section[unit] is not None]
    if len(units) == 1:
        for unit in UNITS:
            if unit not in given:
                section.pop(unit, None)


@dataclasses.dataclass(frozen=True)
class _Override:
    """One ``-o key.path=value``: as errors name it, the keys on the way, and the value."""

    name: str
    path: tuple
    value: object

    @classmethod
    def parse(cls, text):
        key, equals, value = text.partition('=')
        path = tuple(key.strip().split('.'))
        name = f'-o {shortened(text)}'
        if not equals or not all(key and key.isprintable() for key in path):
            raise located(name, 'given no key.path=value, allowed: train.epochs=2')
        if len(path) > bounded_yaml.DEEPEST:
            raise located(name, f'more than {bounded_yaml.DEEPEST} keys')
        try:
            return cls(name, path, bounded_yaml.parse(value.encode('utf-8', 'surrogatepass')))
        except ValueError as error:
            raise located(name, f'the value is {error}') from None


def _apply(override, content, path):
    """Sets the override's key in what the file holds, with the mappings that lead to it."""
    if override.path == ('base',):
        raise located(override.name, 'the base is named in the file, and only there')
    where = f'{path}, {override.name}'
    node = content
    for depth, key in enumerate(override.path):
        parent = shortened('.'.join(override.path[:depth]))
        if isinstance(node, list):
            if key not in map(str, range(len(node))):
                item = f'given item {shortened(key)}, allowed: 0 to {len(node) - 1}'
                raise located(where, f'{parent}: {item}')
            key = int(key)
        elif not isinstance(node, dict):
            raise located(where, f'{parent}: given {shown(node)}, allowed: a mapping or a list')
        if depth == len(override.path) - 1:
            node[key] = override.value
            _drop_other_unit(node, [key])
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        else:
            node[key] = copy.copy(node[key])  # an alias may have it in another place, too
        node = node[key]
