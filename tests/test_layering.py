"""The layering of the house: arrows go down only."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the bottom up; a module may import what stands below it, and its own level.
LEVELS = [
    {'chainerlp.compat'},
    {'chainerlp.types'},
    {'chainerlp.formats', 'chainerlp.gpu', 'chainerlp.window'},
    {'chainerlp.rounding', 'chainerlp.moments', 'chainerlp.join_kernels'},
    {'chainerlp.statistics', 'chainerlp.gemm'},
    {'chainerlp.geometry', 'chainerlp.scaled_array'},
    {'chainerlp.true_gradients'},
    {'chainerlp.master_weights', 'chainerlp.overflow', 'chainerlp.policies'},
    {'chainerlp.optimizer_hooks', 'chainerlp.gated_update'},
    {'chainerlp.layer_scale', 'chainerlp.multi_node', 'chainerlp.grouped_update'},
    {'chainerlp.functions'},
    {'chainerlp.links'},
    {'chainerlp.backprop', 'chainerlp.initial_scale', 'chainerlp.training_warnings'},
    {'chainerlp.optimizers', 'chainerlp.optimizer_wrapper', 'chainerlp.model_state'},
    {'chainerlp.extensions'},
    {'chainerlp.diagnosis'},
    {'experiments.config'},
    {'experiments.data'},
    {'experiments.models'},
    {'experiments.tasks'},
    {'experiments.reports'},
    {'experiments.run'},
    {'experiments.benchmarks'},
    {'experiments.__main__'},
]
MODULES = sorted(
    path for folder in ('chainerlp', 'experiments') for path in (ROOT / folder).rglob('*.py')
)


def level_of(name):
    for level, parts in enumerate(LEVELS):
        if any(name == part or name.startswith(part + '.') for part in parts):
            return level
    return None


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(path):
    """Yields the full names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: imports are absolute'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_a_module_imports_only_what_stands_below_it(path):
    own = module_name(path)
    if own in ('chainerlp', 'experiments'):
        return
    level = level_of(own)
    assert level is not None, f'{own} has no place in the layering'
    for name in imports(path):
        if name.split('.')[0] in ('chainerlp', 'experiments') and '.' in name:
            imported = level_of(name)
            assert imported is not None and imported <= level, f'{own} imports {name}'


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_nobody_imports_a_private_name_across_two_folders(path):
    own = module_name(path).split('.')
    folder = own if path.name == '__init__.py' else own[:-1]
    for name in imports(path):
        parts = name.split('.')
        if parts[0] in ('chainerlp', 'experiments') and any(p.startswith('_') for p in parts):
            assert parts[:-1] == folder or parts[: len(folder)] == folder, f'{path}: {name}'


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_files_stay_readable_in_one_sitting(path):
    assert len(path.read_text(encoding='utf-8').splitlines()) <= 400


def test_the_root_of_the_experiments_holds_the_command_alone():
    files = {path.name for path in (ROOT / 'experiments').glob('*.py')}
    assert files == {'__init__.py', '__main__.py'}
