"""Whatever a config file has become, the answer is one line: the real configs are mutated."""

import contextlib
import copy
import io
import os
import pathlib
import time

from experiments.__main__ import main
from experiments.config import loading

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CONFIGS = {
    path.name: path.read_text()
    for path in sorted((pathlib.Path(__file__).parents[3] / 'configs').glob('*.yaml'))
}
LINES = sorted({line for text in CONFIGS.values() for line in text.splitlines(keepends=True)})
LONGEST, SECONDS = 299, 2.0


def laughs(levels, width, make='[{}]'):
    """Returns a list of which each item is many aliases of the one before: a billion laughs."""
    items = ['&l0 ' + make.format(', '.join(['a: 1'] * width))]
    for level in range(1, levels):
        items.append(f'&l{level} ' + make.format(', '.join([f'*l{level - 1}'] * width)))
    return f'[{", ".join(items)}]'


# What YAML has to offer, most of it in one line and so at home in any place of a file.
SCALARS = [
    *('', '~', '0', '-1', '1.5', 'true', "''", '.nan', '.inf', '-.inf', '+', '-', '?', '.', '='),
    *('1_0', '08', '0x', '0b', '1e999', '1:59:59', '2020-01-01', '2020-13-01', '<<', 'a b'),
    *('9' * 30, '9' * 400 + '.', '1' + '_' * 5000, '1:' * 3000 + '1', '0x' + 'f' * 5000),
    *('9' * 4300, '-' + '9' * 5000, '.' + '9' * 5000, '1e' + '9' * 5000, '1e-' + '9' * 5000),
    *('x' * 10000, '"' + 'x ' * 5000 + '"', 'x' * 70000, '\U0001f600' * 20000, 'x/' * 3000),
    *(r'"\0"', r'"\ud800"', r'"\U0010ffff"', r'"\Uffffffff"', r'"\e[2J"', r'"\L\P\N"', r'"\x"'),
    *(r'"\n"', r'"a\nb"', '/dev/null', '/dev/zero', '..', '~root', '$HOME'),
]
TAGS = 'int float bool null timestamp binary str seq map set omap pairs merge value yaml'.split()
TAGGED = [
    *(f'!!{tag} {value}' for tag in TAGS for value in ('x', "''", '1', '[a]', '{a: 1}', '[a: 1]')),
    *('!!python/object/apply:os.system [ls]', '!!python/name:os.system', '!x y', '! 1', '!<x> y'),
]
NESTED = [
    *('[]', '{}', '[[]]', '{[a]: 1}', '{{a: 1}: 1}', '{~: 1}', '{1: 1, 1.0: 2}', '{a: 1, a: 2}'),
    *('[' * 10000, '[' * 10000 + ']' * 10000, '{a: ' * 5000, '[{' * 300, '- ' * 30, '? ' * 2000),
    *('{? ' * 2000, '!!set {' * 500, '&a ' * 9, '{a: ' * 25 + '1' + '}' * 25),
    *('[' + '1, ' * 15000 + ']', '[' + '[], ' * 9000 + ']', '{' + '? , ' * 9000 + '}'),
    '{' + ', '.join(f'k{i}: 1' for i in range(2400)) + '}',
]
MANY = ', '.join(f'k{i}: 1' for i in range(900))
ALIASES = [
    *('&x', '&x 1', '&x [*x]', '&x {a: *x}', '&x {*x : 1}', '*none', '[&x 1, &x 2, *x]'),
    *('{<<: 1}', '{<<: [1]}', '{<<: {a: 1}, <<: {a: 2}}', '&x {<<: *x}', '&x {a: {<<: *x}}'),
]
BOMBS = [
    *(laughs(9, 9), laughs(30, 2), f'{{? {laughs(7, 9)} : 1}}', f'? {laughs(7, 9)}\n: 1\n'),
    *(laughs(7, 8, '{{<<: [{}]}}'), laughs(21, 2, '{{<<: [{}]}}')),
    f'[&x {{{MANY}}}, {{<<: [{"*x, " * 2000}]}}]',
    f'&x {{{MANY}, y: {{<<: [{"*x, " * 2000}]}}}}',
]
MARKS = [
    *('---', '...', '--- 1', '%YAML 1.1\n---', '%YAML 9.9\n---', '%YAML 1.' + '9' * 5000 + '\n---'),
    *('%TAG ! !!\n---', '\ufeff', '\0', '\x1b', '\x85', '\u2028', '\ud800', '\t', '\r', '\n', '# '),
    *('- ', ': ', '? ', '<<: ', '&a ', '*a', '|9', '>-\n', *'-?:,[]{}#&*!|>\'"%@`'),
]

odd_values = st.recursive(
    st.one_of(
        *map(st.sampled_from, (SCALARS, TAGGED, NESTED, ALIASES, BOMBS)),
        st.integers().map(str),
        st.floats().map(lambda number: yaml.safe_dump(number).split('\n')[0]),
        st.text(max_size=20).map(repr),
        st.dates().map(str),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda items: f'[{", ".join(items)}]'),
        st.lists(st.tuples(values, values), max_size=2).map(
            lambda pairs: f'{{{", ".join(f"{key}: {value}" for key, value in pairs)}}}'
        ),
    ),
    max_leaves=4,
)
snippets = st.one_of(odd_values, st.sampled_from(MARKS), st.text(st.characters(), max_size=5))
texts = st.sampled_from(list(CONFIGS.values()))
ODD_ITEMS = ['x', '-1', '9', '9' * 5000, '\u00b2', '\u0661']


@st.composite
def mutated_texts(draw):
    """Returns a config's text in which lines or characters are gone, doubled or others."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 4))):
        parts = draw(st.sampled_from([text.splitlines(keepends=True), list(text)]))
        start = draw(st.integers(0, len(parts)))
        end = start + draw(st.sampled_from([0, 1, 1, 2, 5]))
        old = ''.join(parts[start:end])
        simple = st.sampled_from(['', old * 2, *LINES])
        parts[start:end] = draw(st.one_of(simple, snippets, snippets.map(old.__add__)))
        text = ''.join(parts)
    return text.encode('utf-8', 'surrogatepass')


def places(tree):
    """Yields the mapping or list, the key in it, and the value, of everything in a tree."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key, value
        if isinstance(value, (dict, list)):
            yield from places(value)


KEYS = sorted({str(key) for text in CONFIGS.values() for _, key, _ in places(yaml.safe_load(text))})


@st.composite
def mutated_trees(draw):
    """Returns the text of a config in which keys and values are gone, moved or odd."""
    tree = yaml.safe_load(draw(texts))
    odd = []

    def hole():
        odd.append(draw(odd_values))
        return f'HOLE{len(odd) - 1}-'

    for _ in range(draw(st.integers(1, 3))):
        parent, key, value = draw(st.sampled_from(list(places(tree))))
        kind = draw(st.sampled_from(['odd', 'odd', 'more', 'delete', 'rename', 'move', 'wrap']))
        if kind == 'odd':
            parent[key] = hole()
        elif kind == 'more' and isinstance(parent, list):
            parent.insert(key, hole())
        elif kind == 'more':
            parent[hole()] = value
        elif kind == 'delete' and len(tree) > 1:
            del parent[key]
        elif kind == 'rename' and isinstance(parent, dict):
            del parent[key]
            parent[draw(st.sampled_from(KEYS))] = value
        elif kind == 'move':
            _, _, other = draw(st.sampled_from(list(places(tree))))
            parent[key] = copy.deepcopy(other)
        elif kind == 'wrap':
            parent[key] = draw(st.sampled_from([[value], {'a': value}, [1, 1, 1, 1]]))
    flow = draw(st.sampled_from([None, True, False]))
    text = yaml.safe_dump(tree, default_flow_style=flow, sort_keys=False, width=10**6)
    for index, value in enumerate(odd):
        text = text.replace(f'HOLE{index}-', value)
    return text.encode('utf-8', 'surrogatepass')


@st.composite
def mutated_bytes(draw):
    """Returns a config's bytes, some of which are others, or that are of another encoding."""
    text = draw(texts)
    encoding = draw(st.sampled_from(['utf-8', 'utf-8', 'utf-8', 'utf-16', 'utf-8-sig', 'utf-32']))
    content = bytearray(text.encode(encoding))
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([None, 1, 100]))])


@st.composite
def with_a_base(draw):
    """Returns the text of a config that builds on what may not be one."""
    names = ['fifo', 'other.yaml', 'mutant.yaml', './other.yaml', '../configs/other.yaml', *CONFIGS]
    base = draw(st.one_of(st.sampled_from(names), odd_values))
    rest = draw(st.one_of(mutated_trees(), st.just(b''), texts.map(str.encode)))
    lines = [line for line in rest.splitlines() if not line.startswith(b'base:')]
    return b'\n'.join([f'base: {base}'.encode('utf-8', 'surrogatepass'), *lines])


overrides = st.builds(
    '{}={}'.format,
    st.one_of(
        st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map('.'.join),
        st.sampled_from(['', '.', 'base', 'sweep.seeds.0', 'sweep.scaling.0.method', '\udc80']),
        st.sampled_from(['a.' * 5000 + 'a', 'x' * 5000, *(f'sweep.seeds.{i}' for i in ODD_ITEMS)]),
        st.text(st.characters(), max_size=5),
    ),
    snippets,
).filter(lambda text: not text.startswith('-'))
mutants = st.one_of(mutated_texts(), mutated_trees(), mutated_bytes(), with_a_base())
cases = st.tuples(
    st.sampled_from(['train', 'sweep']),
    mutants,
    mutants,
    st.one_of(st.just([]), st.just([]), st.lists(overrides, min_size=1, max_size=2)),
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('configs')
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    os.mkfifo(folder / 'fifo')
    return folder


def check(folder, case):
    """A mutant is refused in one line and at once; one that is right as it is comes to the end."""
    command, content, other, given_overrides = case
    path, out = folder / 'mutant.yaml', folder / 'out'
    path.write_bytes(content)
    (folder / 'other.yaml').write_bytes(other)
    before = sorted(folder.iterdir())
    options = [option for override in given_overrides for option in ('-o', override)]
    said, printed = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        # There is no such device, and it is asked for after the config is read: nothing is trained.
        code = main([command, str(path), *options, '--out', str(out), '--device', '@none'])
    seconds = time.process_time() - started
    line = said.getvalue()
    assert (code, printed.getvalue()) == (2, '')
    assert line.endswith('\n') and len(line.splitlines()) == 1 and line[:-1].isprintable()
    assert len(line) - 1 <= LONGEST, line
    assert seconds < SECONDS
    assert sorted(folder.iterdir()) == before
    if line.startswith('--device @none: '):
        config = loading.load(str(path), given_overrides)
        copied = folder / 'other.yaml'
        copied.write_text(loading.dump(config), encoding='utf-8')
        assert loading.load(str(copied)) == config
    else:
        assert str(path) in line or line.startswith('-o '), line


CALM = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(CALM, max_examples=300)
@given(case=cases)
def test_a_mutant_is_refused_in_one_line(folder, case):
    check(folder, case)


@pytest.mark.slow
@settings(CALM, max_examples=10_000)
@given(case=cases)
def test_many_mutants_are_refused_in_one_line(folder, case):
    check(folder, case)
