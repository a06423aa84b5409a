"""YAML is read at once, or refused at once with a reason, whatever it is."""

import time

from experiments.config import bounded_yaml

import pytest


def doubling(levels, first, make):
    """A text in which each level is made of two aliases of the last."""
    lines = [f'l0: &l0 {first}']
    lines += [f'l{i}: &l{i} ' + make.format(f'*l{i - 1}') for i in range(1, levels)]
    return '\n'.join(lines)


def refusal(text):
    started = time.process_time()
    with pytest.raises(ValueError) as raised:
        bounded_yaml.parse(text.encode())
    assert time.process_time() - started < 2
    return str(raised.value)


@pytest.mark.parametrize(
    'text, said',
    [
        ('# ' + 'x' * 2**16, 'larger than 64 KiB'),
        ('a: ' + '[' * 21, 'not YAML: line 1, column 24: nested more than 20 deep'),
        ('a: ' + '[' * 10000 + ']' * 10000, 'not YAML: line 1, column 24: nested more than 20'),
        ('- ' * 30, 'not YAML: line 1, column 43: nested more than 20 deep'),
        ('{' + ', '.join(f'k{i}: 1' for i in range(2500)) + '}', 'not YAML: line 1, column 23889:'),
        (doubling(40, '[1, 2]', '[{0}, {0}]'), 'not YAML: line 11, column 12: more than 5000 val'),
        (doubling(40, '{a: 1}', '{{a: {0}, b: {0}}}'), 'not YAML: line 10, column 21: more than'),
        (doubling(40, '{a: 1}', '{{<<: [{0}, {0}]}}'), 'not YAML: line 10, column 20: more than'),
    ],
)
def test_more_than_a_config_can_need_is_refused(text, said):
    assert refusal(text).startswith(said)


@pytest.mark.parametrize(
    'number', ['9' * 20, '-' + '9' * 5000, '0x1' + '0' * 16, '0b1' + '0' * 5000, '1:' * 3000 + '0']
)
def test_an_integer_has_at_most_64_bits(number):
    assert refusal(f'a: {number}') == 'not YAML: line 1, column 4: an integer of more than 64 bits'
    assert bounded_yaml.parse(b'[18446744073709551615, -0x10]') == [2**64 - 1, -16]


@pytest.mark.parametrize(
    'value, said',
    [
        ('!!bool x', 'no bool (line 2, column 4)'),
        ("!!int ''", 'no int (line 2, column 4)'),
        ("!!float ''", 'no float (line 2, column 4)'),
        ('!!timestamp x', 'no timestamp (line 2, column 4)'),
        ('2020-13-01', 'month must be in 1..12 (line 2, column 4)'),
        ('!!float x', "could not convert string to float: 'x' (line 2, column 4)"),
        ('!!map [x]', 'line 2, column 4: expected a mapping node, but found sequence'),
        ('!!map x', 'line 2, column 4: expected a mapping node, but found scalar'),
        (r'"\Uffffffff"', ''),
        (r'"\0"', 'line 2, column 4: a character that no text has'),
        (r'"\ud800"', 'line 2, column 4: a character that no text has'),
        ('\0', 'character 5: special characters are not allowed'),
        ('1\n---', 'line 3, column 1: expected a single document in the stream'),
        ('[&x 1, &x 2]', "line 2, column 11: found duplicate anchor 'x'"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place(value, said):
    assert refusal(f'\na: {value}').startswith(f'not YAML: {said}')


def test_an_alias_in_what_it_stands_for_is_no_value_of_a_config():
    value = bounded_yaml.parse(b'a: &x {b: *x}')['a']['b']
    assert str(value) == '*x'
    assert not isinstance(value, (type(None), bool, int, float, str, list, tuple, dict))


def test_aliases_and_merge_keys_are_read_as_ever():
    text = b'a: &x {b: 1}\nc: [*x, *x]\nd: {<<: *x, e: 1e-3}'
    content = {'a': {'b': 1}, 'c': [{'b': 1}, {'b': 1}], 'd': {'b': 1, 'e': 0.001}}
    assert bounded_yaml.parse(text) == content
