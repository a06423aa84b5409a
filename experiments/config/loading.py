"""Config files: read with the command line's overrides, written, and compared."""

import dataclasses
import re

from experiments.config import inheritance
from experiments.config.errors import ConfigError, describe, shown
from experiments.config.experiment import Config

import pydantic
import yaml


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, but 1e-3 is a number, as in YAML 1.2, and no key may be given twice."""

    def construct_mapping(self, node, deep=False):
        given = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in given:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key {key.value} is given twice', key.start_mark
                )
            given.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$'),
    list('-+.0123456789'),
)
# Besides its own errors PyYAML raises ValueError for a date that does not exist, and RecursionError
# for lists nested too deeply.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


@dataclasses.dataclass(frozen=True)
class _Override:
    """One ``-o key.path=value``: its text, the keys on the way, and the value as YAML reads it."""

    text: str
    path: tuple
    value: object

    @classmethod
    def parse(cls, text):
        key, equals, value = text.partition('=')
        path = tuple(key.strip().split('.'))
        if not equals or not all(path):
            raise ConfigError(f'-o {text}: given no key.path=value, allowed: train.epochs=2')
        try:
            return cls(text, path, yaml.load(value, _Loader))
        except _NOT_YAML as error:
            raise ConfigError(f'-o {text}: the value is not YAML: {_reason(error)}') from None


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
            where = f'{path}, -o {blamed[-1].text}'
        else:
            where = inheritance.source_of(chain, key)
        raise ConfigError(f'{where}: {message}') from None


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


def _read(path):
    try:
        with open(path, encoding='utf-8') as file:
            content = yaml.load(file, _Loader)
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path}: not UTF-8 text (byte {error.start})') from None
    except _NOT_YAML as error:
        raise ConfigError(f'{path}: not YAML: {_reason(error)}') from None
    if not isinstance(content, dict):
        keys = ', '.join(Config.model_fields)
        raise ConfigError(
            f'{path}: given {shown(content)}, allowed: a mapping with the keys {keys}'
        )
    return content


def _reason(error):
    mark = getattr(error, 'problem_mark', None)
    where = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark else ''
    return f'{where}{getattr(error, "problem", None) or error}'


def _apply(override, content, path):
    """Sets the override's key in what the file holds, with the mappings that lead to it."""
    if override.path == ('base',):
        raise ConfigError(f'-o {override.text}: the base is named in the file, and only there')
    node = content
    for depth, key in enumerate(override.path):
        last = depth == len(override.path) - 1
        if isinstance(node, list):
            key = _index(override, depth, node, path)
        elif not isinstance(node, dict):
            parent = '.'.join(override.path[:depth])
            raise ConfigError(
                f'{path}, -o {override.text}: {parent}: given {shown(node)},'
                ' allowed: a mapping or a list'
            )
        if last:
            node[key] = override.value
            inheritance.drop_other_unit(node, [key])
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]


def _index(override, depth, items, path):
    key = override.path[depth]
    if not key.isdecimal() or int(key) >= len(items):
        parent = '.'.join(override.path[:depth])
        allowed = f'0 to {len(items) - 1}'
        raise ConfigError(
            f'{path}, -o {override.text}: {parent}: given item {key}, allowed: {allowed}'
        )
    return int(key)
