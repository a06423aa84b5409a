"""From a YAML file and the overrides of the command line to a valid config."""

import dataclasses
import re

from experiments import bases, complaints
from experiments.config import Config
from experiments.errors import ConfigError

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


# Beside its own errors PyYAML lets through those of a date that there is not, and of lists in lists
# in lists.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


@dataclasses.dataclass(frozen=True)
class Override:
    """One ``-o key.path=value``.

    Attributes:
        text (str): As it was given.
        path (tuple of str): The keys on the way, list items by their index.
        value: As YAML reads it.
    """

    text: str
    path: tuple
    value: object

    @classmethod
    def parse(cls, text):
        """Reads an override.

        Raises:
            ConfigError: If it is none.
        """
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
    overrides = [Override.parse(text) for text in overrides]
    chain = bases.follow(path, _read)
    content = bases.merge(chain)
    for override in overrides:
        _apply(override, content, path)
    try:
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        key, complaint = complaints.first(error, Config)
        blamed = [o for o in overrides if all(a == b for a, b in zip(o.path, key))]
        if blamed:
            where = f'{path}, -o {blamed[-1].text}'
        else:
            where = bases.holder(chain, key)
        raise ConfigError(f'{where}: {complaint}') from None


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
            f'{path}: given {complaints.shown(content)}, allowed: a mapping with the keys {keys}'
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
                f'{path}, -o {override.text}: {parent}: given {complaints.shown(node)},'
                ' allowed: a mapping or a list'
            )
        if last:
            node[key] = override.value
            bases.drop_other_unit(node, [key])
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
