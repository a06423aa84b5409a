"""Errors that are the user's to correct, and validation errors in words.

A config error is one line: the key, what was given, what is allowed. pydantic says what it did not
like; what is allowed instead is read from the JSON schema, so that nothing is typed in twice.
"""

import difflib

import yaml

_LONGEST = 60  # characters of a value or a key
_LONGEST_LINE = 299
_LONGEST_ERROR = 1000  # a path may be long
_LEAST = 100  # characters that are left to say what is wrong, however long the path is
_UNKNOWN_KEY = ('extra_forbidden', 'invalid_key')


class OneLineError(Exception):
    """Shown as one line of what can be printed, without a traceback; its middle is cut out if long.

    Names and values in it may be those of a file from anywhere.
    """

    def __init__(self, message):
        line, half = _one_line(message), _LONGEST_ERROR // 2
        super().__init__(line if len(line) <= 2 * half else f'{line[:half]} ... {line[-half:]}')


def _one_line(text):
    line = ' '.join(text.split())
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class ConfigError(OneLineError):
    """A config, or something else that was asked for, is not as it must be.

    Its message is one line: where, what was given, what is allowed.
    """


class DataError(ConfigError):
    """A file of a data set is missing or damaged, or the folder is not laid out as it must be."""


class DamagedImageError(DataError):
    """One image file cannot be decoded, while others of the data set may be whole."""


class RunError(OneLineError):
    """A run failed for a reason outside its code, such as a full disk."""


def located(where, what):
    """Returns a ConfigError: where, and what is wrong there, cut so that it is no long line."""
    where = _one_line(where)
    return ConfigError(f'{where}: {shortened(what, max(_LEAST, _LONGEST_LINE - len(where) - 2))}')


def describe(error, model):
    """Puts the first of the errors that pydantic found in a model class's input into words.

    Unknown keys come first: a misspelt key is also a missing one.

    Returns:
        tuple: The key, as a list of its parts (strings), and the message, which names it.
    """
    details = error.errors(include_url=False)
    detail = next((d for d in details if d['type'] in _UNKNOWN_KEY), details[0])
    kind, loc, given = detail['type'], detail['loc'], detail['input']
    schema = model.model_json_schema()
    key, node = _walk(schema, loc[:-1] if kind in _UNKNOWN_KEY else loc)
    if kind in _UNKNOWN_KEY:
        key.append(str(loc[-1]))
        message = _unknown(key[-1], given, list(node.get('properties', {})))
    elif kind == 'union_tag_not_found':
        key.append(node['discriminator']['propertyName'])
        message = f'missing, allowed: {_tags(node)}'
    elif kind == 'union_tag_invalid':
        key.append(node['discriminator']['propertyName'])
        message = f'given {shown(given[key[-1]])}, allowed: {_tags(node)}'
    elif kind == 'missing':
        message = f'missing, allowed: {_allowed(node, schema)}'
    elif kind == 'value_error':
        message = f'given {shown(given)}, allowed: {detail["ctx"]["error"]}'
    else:
        message = f'given {shown(given)}, allowed: {_allowed(node, schema)}'
        if kind == 'finite_number':  # JSON has no other numbers, so its schema does not say so
            message = message.replace('allowed: a number', 'allowed: a finite number')
    return key, f'{shortened(".".join(key))}: {message}'


def _unknown(key, given, keys):
    near = difflib.get_close_matches(key, keys, n=1)
    meant = f'did you mean {near[0]}? ' if near else ''
    return f'unknown key (given {shown(given)}), {meant}allowed: {", ".join(keys)}'


def shown(value):
    """Shows a value as YAML would, in one line and not too long.

    >>> shown({'lr': float('inf')}), shown('0.1'), shown(0.1)
    ('{lr: .inf}', "'0.1'", '0.1')
    """
    if isinstance(value, str):
        return shortened(repr(value))
    text = ''
    for piece in _flow(value):  # only as far as it is shown
        text += piece
        if len(text) > 2 * _LONGEST:
            break
    return shortened(text)


def _flow(value):
    if isinstance(value, (dict, list, tuple)):
        is_mapping = isinstance(value, dict)
        opening, closing = '{}' if is_mapping else '[]'
        yield opening
        for index, item in enumerate(value):
            yield ', ' if index else ''
            yield from _flow(item)
            if is_mapping:
                yield ': '
                yield from _flow(value[item])
        yield closing
    else:
        try:
            yield yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]
        except yaml.representer.RepresenterError:  # no value of YAML's
            yield str(value)


def shortened(text, longest=_LONGEST):
    """Shows a text in one line, and cuts what is longer than it may be; three dots say so."""
    text = _one_line(text)
    return text if len(text) <= longest else text[: longest - 3] + '...'


def _walk(schema, loc):
    """Follows a location of pydantic's through the schema; returns the key and the node there.

    A member of a tagged union has its tag in the location, which is no key.
    """
    key, node = [], schema
    for part in loc:
        node = _resolved(node, schema)
        if 'anyOf' in node:  # what follows says which of the alternatives was tried
            break
        tagged = node.get('discriminator', {}).get('mapping', {})
        if part in tagged:
            node = {'$ref': tagged[part]}
            continue
        key.append(str(part))
        if isinstance(part, int):
            node = node['prefixItems'][part] if 'prefixItems' in node else node['items']
        else:
            node = node['properties'].get(part, {})
    return key, _resolved(node, schema)


def _resolved(node, schema):
    """Follows references, and passes by the null of an optional value."""
    while True:
        if '$ref' in node:
            node = schema['$defs'][node['$ref'].rpartition('/')[2]]
        elif node.get('anyOf', [])[1:] == [{'type': 'null'}]:
            node = node['anyOf'][0]
        else:
            return node


def _tags(node):
    return 'one of ' + ', '.join(node['discriminator']['mapping'])


def _allowed(node, schema):
    """Describes in words what a node of the schema allows."""
    node = _resolved(node, schema)
    if 'discriminator' in node:
        return f'a mapping with {node["discriminator"]["propertyName"]}: {_tags(node)}'
    if 'enum' in node:
        return 'one of ' + ', '.join(map(str, node['enum']))
    if 'const' in node:
        return str(node['const'])
    if 'anyOf' in node:
        return ' or '.join(_allowed(option, schema) for option in node['anyOf'])
    if node['type'] == 'object':
        return f'a mapping with the keys {", ".join(node["properties"])}'
    if 'prefixItems' in node:  # of the same kind, all of them
        items = node['prefixItems']
        return f'a list of {len(items)} items, each {_allowed(items[0], schema)}'
    if node['type'] == 'array':
        least = f'at least {node["minItems"]} item'
        most = f' and at most {node["maxItems"]}' if 'maxItems' in node else ''
        return f'a list with {least}{most}, each {_allowed(node["items"], schema)}'
    words = {
        'integer': 'an integer',
        'number': 'a number',
        'string': 'a string',
        'boolean': 'true or false',
    }
    return words[node['type']] + _limits(node)


def _limits(node):
    signs = {'minimum': '>=', 'exclusiveMinimum': '>', 'maximum': '<=', 'exclusiveMaximum': '<'}
    limits = [f'{sign} {node[name]}' for name, sign in signs.items() if name in node]
    if 'pattern' in node:
        limits.append(f'that matches {node["pattern"]}')
    if 'maxLength' in node:
        limits.append(f'of at most {node["maxLength"]} characters')
    return ' ' + ' and '.join(limits) if limits else ''
