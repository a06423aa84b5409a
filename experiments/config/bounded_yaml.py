"""YAML within bounds: whatever the text is, it is read at once, or refused with a reason.

The safe subset, in which 1e-3 is a number, as in YAML 1.2, and no key may be given twice. An alias
counts as all that it stands for, so that none can make much of little.
"""

import dataclasses
import re

from experiments.config.errors import shortened

import yaml

DEEPEST = 20
"""How deep a value may be nested; a config needs 4."""
LARGEST = 2**16
"""How many bytes a text may have; a config has a thousand."""
_MOST_NODES = 5_000  # scalars, lists and mappings; a config has a hundred
_WIDEST = 64  # bits of an integer
_ENDLESS = '!endless'
_NO_TEXT = re.compile('[\0\ud800-\udfff]')  # escapes can make it; no path or file can have it


def parse(content):
    """Returns the value that UTF-8 encoded YAML, as bytes, stands for.

    Raises:
        ValueError: If it is something else, or more than a config can need; says what it is.
    """
    if len(content) > LARGEST:
        raise ValueError(f'larger than {LARGEST // 1024} KiB')
    try:
        return yaml.load(content.decode('utf-8'), _Loader)
    except UnicodeDecodeError as error:
        raise ValueError(f'not UTF-8 text (byte {error.start})') from None
    # Besides its own errors, PyYAML lets pass whatever chr() and int() say to escapes and versions.
    except Exception as error:
        raise ValueError(f'not YAML: {_reason(error)}') from None


def _reason(error):
    if isinstance(error, yaml.reader.ReaderError):
        return f'character {error.position + 1}: {error.reason}'
    mark = getattr(error, 'problem_mark', None)
    where = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark else ''
    if isinstance(error, yaml.composer.ComposerError) and error.context:
        return f'{where}{error.context.partition(";")[0]}'  # the problem is but its second half
    return f'{where}{shortened(str(getattr(error, "problem", None) or error), 120)}'


@dataclasses.dataclass(frozen=True)
class _Endless:
    """Stands for an alias in what it stands for itself: a value that no key takes."""

    anchor: str

    def __str__(self):
        return f'*{self.anchor}'


class _Loader(yaml.SafeLoader):
    def __init__(self, stream):
        super().__init__(stream)
        self._depth = self._count = 0
        self._sizes = {}  # nodes of each node, aliases expanded, once it is complete

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if node not in self._sizes:
                return yaml.ScalarNode(_ENDLESS, event.anchor, event.start_mark, event.end_mark)
            self._add(self._sizes[node], event)
            return node
        before = self._count
        self._add(1, event)
        if self._depth > DEEPEST:
            raise _error(f'nested more than {DEEPEST} deep', event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[node] = self._count - before
        return node

    def _add(self, nodes, event):
        self._count += nodes
        if self._count > _MOST_NODES:
            raise _error(f'more than {_MOST_NODES} values, aliases expanded', event)

    def construct_object(self, node, deep=False):
        kind = node.tag.rpartition(':')[2]
        is_long = kind == 'int' and len(node.value) > 2 * _WIDEST  # int() may take long
        try:
            value = 0 if is_long else super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # of int(), a look-up, a date: not what its tag says
            problem = str(error) if isinstance(error, ValueError) else f'no {kind}'
            place = f'line {node.start_mark.line + 1}, column {node.start_mark.column + 1}'
            raise ValueError(f'{shortened(problem)} ({place})') from None
        if is_long or (isinstance(value, int) and value.bit_length() > _WIDEST):
            raise _error(f'an integer of more than {_WIDEST} bits', node)
        if isinstance(value, str) and _NO_TEXT.search(value):
            raise _error('a character that no text has', node)
        return value

    def construct_mapping(self, node, deep=False):
        given = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        for key in (key for key, _ in pairs if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in given:
                raise _error(f'key {shortened(key.value)} is given twice', key)
            given.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _error(problem, where):
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$'),
    list('-+.0123456789'),
)
_Loader.add_constructor(_ENDLESS, lambda loader, node: _Endless(node.value))
