"""Config files: read with the command line's overrides, written, and compared."""

import copy
import dataclasses

from experiments.config import bounded_yaml, inheritance
from experiments.config.errors import describe, located, shortened, shown
from experiments.config.experiment import Config

import pydantic
import yaml


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


def load(path, overrides=()):
    """Loads a config.

    Args:
        path (str): The YAML file; what it does not say is taken from its ``base``, if it has one.
        overrides (list of str): ``key.path=value``, the later one wins.

    Returns:
        Config: The config.

    Raises:
        ConfigError: If the file cannot be read or is not a valid config.
    """
    overrides = [_Override.parse(text) for text in overrides]
    chain = inheritance.read_chain(path, _read)
    content = inheritance.merge(chain)
    for override in overrides:
        _apply(override, content, path)
    try:
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        key, message = describe(error, Config)
        blamed = [o for o in overrides if all(a == b for a, b in zip(o.path, key))]
        if blamed:
            where = f'{path}, {blamed[-1].name}'
        else:
            where = inheritance.source_of(chain, key)
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


def _read(path, way):
    try:
        with open(path, 'rb') as file:
            content = bounded_yaml.parse(file.read(bounded_yaml.LARGEST + 1))
    except OSError as error:
        raise located(way, error.strerror) from None
    except ValueError as error:
        raise located(way, str(error)) from None
    if not isinstance(content, dict):
        keys = ', '.join(Config.model_fields)
        raise located(way, f'given {shown(content)}, allowed: a mapping with the keys {keys}')
    return content


def _apply(override, content, path):
    """Sets the override's key in what the file holds, with the mappings that lead to it."""
    if override.path == ('base',):
        raise located(override.name, 'the base is named in the file, and only there')
    node = content
    for depth, key in enumerate(override.path):
        last = depth == len(override.path) - 1
        if isinstance(node, list):
            key = _index(override, depth, node, path)
        elif not isinstance(node, dict):
            parent = '.'.join(override.path[:depth])
            raise located(
                f'{path}, {override.name}',
                f'{shortened(parent)}: given {shown(node)}, allowed: a mapping or a list',
            )
        if last:
            node[key] = override.value
            inheritance.drop_other_unit(node, [key])
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        else:
            node[key] = copy.copy(node[key])  # an alias may have it in another place, too
        node = node[key]


def _index(override, depth, items, path):
    key = override.path[depth]
    if key not in map(str, range(len(items))):
        parent = '.'.join(override.path[:depth])
        raise located(
            f'{path}, {override.name}',
            f'{shortened(parent)}: given item {shortened(key)}, allowed: 0 to {len(items) - 1}',
        )
    return int(key)
