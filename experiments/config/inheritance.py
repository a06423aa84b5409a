"""Config inheritance: a config's ``base: other.yaml`` is read and merged.

The path is relative to the config's own folder. What a config does not say is taken from its base:
mappings are merged key by key, and anything else replaces the base's value. Two exceptions: a
mapping of another kind (another ``name`` or ``method``) replaces the base's as a whole, and a
length in epochs replaces one in iterations, and the other way round.
"""

import os

from experiments.config.errors import located, shortened, shown
from experiments.config.section import UNITS

_KEY = 'base'
_KINDS = ('name', 'method')
_MOST_BASES = 8
_LONGEST_PATH = 160


def read_chain(path, read):
    """Reads a config, its base, the base's base and so on.

    Args:
        path (str): The config.
        read (callable): Reads one file into a mapping, by its path and the way to it, which is what
            its errors begin with.

    Returns:
        list of tuple: Pairs of path and mapping, the config's own first; the mappings are without
        the key ``base``.

    Raises:
        ConfigError: If a base cannot be read, or builds on itself.
    """
    chain = []
    while path is not None:
        names = [name for name, _ in chain]
        way = _way([*names, path])
        if any(os.path.realpath(name) == os.path.realpath(path) for name in names):
            raise located(way, 'base: a config cannot build on itself')
        if len(chain) > _MOST_BASES:
            raise located(way, f'base: a config cannot build on more than {_MOST_BASES} others')
        content = read(path, way)
        base = content.pop(_KEY, None)
        chain.append((path, content))
        if base is not None and not isinstance(base, str):
            raise located(way, f'base: given {shown(base)}, allowed: the path of a config file')
        path = None if base is None else os.path.join(os.path.dirname(path), base)
    return chain


def merge(chain):
    """Merges what :func:`read_chain` returned into one mapping."""
    merged = {}
    for _, content in reversed(chain):
        merged = _merged(merged, content, is_section=False)
    return merged


def source_of(chain, key):
    """Names the file of a chain that a key, a list of its parts, is from, with the way to it.

    Such as ``small.yaml -> full.yaml``; the first file if none has the key.
    """
    for index, (_, content) in enumerate(chain):
        if _has(content, key):
            return _way([path for path, _ in chain[: index + 1]])
    return chain[0][0]


def drop_other_unit(section, given):
    """Removes a length in epochs where one in iterations was given, and the other way round.

    ``section`` is a dict or list in which the keys ``given`` were set.
    """
    units = [unit for unit in UNITS if unit in given and section[unit] is not None]
    if len(units) == 1:
        for unit in UNITS:
            if unit not in given:
                section.pop(unit, None)


def _merged(base, own, is_section=True):
    if is_section and any(base.get(kind) != own.get(kind, base.get(kind)) for kind in _KINDS):
        return own
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    drop_other_unit(merged, own)
    return merged


def _way(paths):
    first, *bases = paths
    bases = [shortened(base, _LONGEST_PATH) for base in bases]
    return ' -> '.join([first, *(bases if len(bases) <= 2 else ['...', *bases[-2:]])])


def _has(content, key):
    for part in key:
        if isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict) and part in content:
            content = content[part]
        else:
            return False
    return True
