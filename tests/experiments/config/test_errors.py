"""A mistake of the user's is one line that names the file and the key; exit code 2."""

import os
import pathlib
import subprocess
import sys

from experiments.config.errors import DataError

import pytest

ROOT = pathlib.Path(__file__).parents[3]
SCALINGS = (
    'one of abs_range, adaptive, amax, dynamic, element_wise_range, fixed, fp32, log_normal,'
    ' measured, none, per_sample'
)


def one_line(result):
    code, out, err = result
    assert (code, out) == (2, '')
    assert err.endswith('\n') and len(err.splitlines()) == 1, err
    assert 'Traceback' not in err
    return err


@pytest.mark.parametrize(
    'override, key, given, allowed',
    [
        ('train.epochs=many', 'train.epochs', "'many'", 'an integer >= 1'),
        ('train.epochs=0', 'train.epochs', '0', 'an integer >= 1'),
        ('train.epochs=2.5', 'train.epochs', '2.5', 'an integer >= 1'),
        ('train.epochs=true', 'train.epochs', 'true', 'an integer >= 1'),
        (
            'train.batch_size=100000000',
            'train.batch_size',
            '100000000',
            'an integer >= 1 and <= 6553',
        ),
        ('model.units=100000000', 'model.units', '100000000', 'an integer >= 1 and <= 65536'),
        ('model.layers=100000000', 'model.layers', '100000000', 'an integer >= 2 and <= 2048'),
        ('model={name: cnn, channels: [1, 1, 99999]}', 'model.channels.2', '99999', 'an integer >'),
        (
            'model={name: resnet_cifar, depth: 6002}',
            'model.depth',
            '6002',
            'an integer >= 1 and <=',
        ),
        ('model={name: ssd, width: 1e9}', 'model.width', '1000000000.0', 'a number > 0 and <= 16'),
        ('dataset={name: text, length: 99999}', 'dataset.length', '99999', 'an integer >= 1 and <'),
        ('loading.workers=5000', 'loading.workers', '5000', 'an integer >= 0 and <= 1024'),
        ('train.max_iterations=x', 'train.max_iterations', "'x'", 'an integer >= 1'),
        ('seed=-1', 'seed', '-1', 'an integer >= 0 and <= 4294967295'),
        ('seed=2020-01-01', 'seed', '2020-01-01', 'an integer >= 0 and <= 4294967295'),
        ('optimizer.lr=-1', 'optimizer.lr', '-1', 'a number > 0'),
        ("optimizer.lr='0.1'", 'optimizer.lr', "'0.1'", 'a number > 0'),
        ('optimizer.lr=.inf', 'optimizer.lr', '.inf', 'a finite number > 0'),
        ('optimizer.lr=.nan', 'optimizer.lr', '.nan', 'a finite number > 0'),
        ('optimizer.name=lars', 'optimizer.name', "'lars'", 'one of adam, momentum_sgd, sgd'),
        ('optimizer=3', 'optimizer', '3', 'a mapping with name: one of adam, momentum_sgd, sgd'),
        ('dataset.name=svhn', 'dataset.name', "'svhn'", 'one of camvid, cifar, digits, imagenet'),
        ('dataset={name: mnist, folder: 1}', 'dataset.folder', '1', 'a string'),
        ('model={name: resnet_cifar, depth: 21}', 'model.depth', '21', '6n + 2, such as 20, 56'),
        ('model={name: segnet}', 'model', '{name: segnet}', 'a model for classification, as dig'),
        ('model={name: transformer}', 'model', '{name: transformer}', 'a model for classificat'),
        ('dataset={name: text, test_size: 0}', 'dataset.test_size', '0', 'an integer >= 1'),
        ('dataset={name: text, length: 0}', 'dataset.length', '0', 'an integer >= 1'),
        (
            'model={name: transformer, units: 30}',
            'model',
            '{name: transformer, units: 30}',
            'units that the heads (4) can share, such as 64 of 4',
        ),
        ('model={name: cnn, channels: 1}', 'model.channels', '1', 'a list of 3 items, each an int'),
        ('model={name: cnn, channels: [1, x, 1]}', 'model.channels.1', "'x'", 'an integer >= 1'),
        (
            'dataset={name: camvid, folder: x, crop: [1, 2, 3]}',
            'dataset.crop',
            '[1, 2, 3]',
            'a list',
        ),
        ('dataset.test_size=5000', 'dataset.test_size', '5000', 'an integer >= 10 and <= 1787'),
        ('model.layers=1', 'model.layers', '1', 'an integer >= 2'),
        ('model=null', 'model', 'null', 'a mapping with name: one of cnn, deep_cnn, mlp, '),
        ('scaling.method=adapt', 'scaling.method', "'adapt'", SCALINGS),
        ('scaling.threshold=1', 'scaling.threshold', '1', 'a number > 0 and < 1'),
        ('scaling.dtype=f', 'scaling.dtype', "'f'", 'one of mixed16, float16, float32'),
        (
            'scaling.dtype=float32',
            'scaling',
            '{method: adaptive, dtype: float32}',
            'compute with dtype: float32, and neither without the other',
        ),
        ('scaling.power_of_two=1', 'scaling.power_of_two', '1', 'true or false'),
        ('scaling.initial_scale=0', 'scaling.initial_scale', '0', 'auto or a number > 0'),
        ('scaling={method: amax, margin: -1}', 'scaling.margin', '-1', 'a number >= 0'),
        ('sweep.scaling.1.method=x', 'sweep.scaling.1.method', "'x'", SCALINGS),
        ('sweep.seeds.0=x', 'sweep.seeds.0', "'x'", 'an integer >= 0 and <= 4294967295'),
        ('sweep.seeds=[]', 'sweep.seeds', '[]', 'a list with at least 1 item'),
        ('sweep.seeds=[1, 1]', 'sweep.seeds', '[1, 1]', 'every item once'),
        ('sweep=3', 'sweep', '3', 'a mapping with the keys seeds, scaling'),
        ('name=../up', 'name', "'../up'", 'a string that matches'),
    ],
)
def test_a_wrong_value(cli, tiny, override, key, given, allowed):
    error = one_line(cli('train', tiny, '-o', override))
    assert error.startswith(f'{tiny}, -o {override}: {key}: given {given}, allowed: {allowed}')


@pytest.mark.parametrize(
    'override, key, near, some_allowed',
    [
        ('train.epoch=3', 'train.epoch', 'epochs', 'batch_size, epochs'),
        ('scaling.thresold=0.1', 'scaling.thresold', 'threshold', 'method, dtype'),
        ('sweep.scaling.1.intervall=1', 'sweep.scaling.1.intervall', 'interval', 'method, dtype'),
        ('sweep.seed=[1]', 'sweep.seed', 'seeds', 'seeds, scaling'),
        ('modle={}', 'modle', 'model', 'name, seed, dataset'),
    ],
)
def test_an_unknown_key_is_told_its_nearest_and_all_allowed(
    cli, tiny, override, key, near, some_allowed
):
    error = one_line(cli('train', tiny, '-o', override))
    assert f'{tiny}, -o {override}: {key}: unknown key' in error
    assert f'did you mean {near}? allowed: ' in error
    assert some_allowed in error


def test_an_option_of_another_method_is_unknown(cli, tiny):
    error = one_line(cli('train', tiny, '-o', 'scaling={method: none, threshold: 0.1}'))
    allowed = 'method, dtype, label, compute, gradient_format'
    assert f'scaling.threshold: unknown key (given 0.1), allowed: {allowed}\n' in error


@pytest.mark.parametrize(
    'override',
    [
        'name=' + 'x' * 101,
        'seed=' + 'x' * 10000,
        'x' * 10000 + '=1',
        'sweep.seeds.' + '9' * 5000 + '=1',
        'a.' * 10000 + 'a=1',
        'seed=[' + '1, ' * 2000 + ']',
        'seed=' + 'x' * 10000 + ': [',
        'model={name: ' + 'x' * 10000 + '}',
        'dataset={name: voc, folder: x, ' + 'x' * 100 + ': ' + 'x' * 100 + '}',
    ],
)
def test_however_long_the_mistake_its_message_is_short(cli, tiny, override):
    error = one_line(cli('train', tiny, '-o', override))
    assert f'-o {override[:20]}' in error and len(error) <= 300


def test_a_long_name_of_a_file_from_elsewhere_makes_no_long_error():
    error = str(DataError(f'a.xml: {"x" * 10**6}, allowed: cat'))
    assert error.startswith('a.xml: xxx') and error.endswith('xxx, allowed: cat')
    assert len(error) == 1005 and 'x ... x' in error
    assert str(DataError('x' * 1000)) == 'x' * 1000


@pytest.mark.parametrize('text', ['\x1b[2J', '\x07', '\u202e', '\udc80'])
def test_what_cannot_be_printed_is_shown_by_its_code(cli, tiny, text):
    for override in (f'{text}=1', f'seed={text}', f'name={text!a}', f'{{{text!a}: 1}}'):
        error = one_line(cli('train', tiny, '-o', override))
        assert text not in error and repr(text)[1:-1] in error


@pytest.mark.parametrize(
    'content, said',
    [
        ('name: [a\nb: c', 'not YAML: line 2, column 2: '),
        ('name: a\nname: b', 'not YAML: line 2, column 1: key name is given twice'),
        ('train: {epochs: 1, epochs: 2}', 'not YAML: line 1, column 20: key epochs is given twice'),
        ('x: !!python/object:os.system y', 'not YAML: line 1, column 4: '),
        ('name: 2020-13-01', 'not YAML: month must be in 1..12'),
        ('[' * 600, 'not YAML: '),
        ('{a: 1}: 2', 'not YAML: line 1, column 1: '),
        ('a: \x01', 'not YAML: '),
        ('- 1', 'given [1], allowed: a mapping with the keys name, seed'),
        ('', 'given null, allowed: a mapping with the keys name, seed'),
        ('a: &x [*x]', 'a: unknown key'),
        ('"two\\nlines": 1', 'two lines: unknown key'),
        ('1: 2', '1: unknown key'),
        ('name: |\n  a\n  b', r"name: given 'a\nb', allowed: a string that matches"),
    ],
)
def test_a_file_that_is_no_config(cli, tmp_path, content, said):
    path = tmp_path / 'config.yaml'
    path.write_text(content)
    assert one_line(cli('train', str(path))).startswith(f'{path}: {said}')


def test_a_file_that_is_no_text(cli, tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_bytes(b'name: \xff')
    assert one_line(cli('train', str(path))) == f'{path}: not UTF-8 text (byte 6)\n'


def test_a_missing_key(cli, tmp_path, tiny):
    path = tmp_path / 'without.yaml'
    path.write_text(pathlib.Path(tiny).read_text().replace('batch_size: 128, ', ''))
    error = one_line(cli('train', str(path)))
    assert error == f'{path}: train.batch_size: missing, allowed: an integer >= 1 and <= 65536\n'


def test_a_missing_method(cli, tiny):
    error = one_line(cli('train', tiny, '-o', 'scaling={}'))
    assert error.endswith(f'scaling.method: missing, allowed: {SCALINGS}\n')


def test_an_option_that_the_method_needs(cli, tiny):
    error = one_line(cli('train', tiny, '-o', 'scaling.method=fixed'))
    assert error == f'{tiny}: scaling.scale: missing, allowed: a number > 0\n'


@pytest.mark.parametrize('name, said', [('none.yaml', 'No such file'), ('.', 'Is a directory')])
def test_a_file_that_cannot_be_read(cli, tmp_path, name, said):
    path = os.path.join(tmp_path, name)
    assert one_line(cli('train', path)).startswith(f'{path}: {said}')


@pytest.mark.parametrize(
    'override, said',
    [
        ('nothing', '-o nothing: given no key.path=value, allowed: '),
        ('=3', '-o =3: given no key.path=value, allowed: '),
        ('a..b=3', '-o a..b=3: given no key.path=value, allowed: '),
        ('seed=[1', '-o seed=[1: the value is not YAML: line 1, column 3: '),
        ('seed.x=3', '{file}, -o seed.x=3: seed: given {{x: 3}}, allowed: an integer'),
        ('name.x=3', "{file}, -o name.x=3: name: given 'tiny', allowed: a mapping or a list"),
        ('sweep.seeds.9=1', '{file}, -o sweep.seeds.9=1: sweep.seeds: given item 9, allowed: 0 to'),
        ('sweep.seeds.x=1', '{file}, -o sweep.seeds.x=1: sweep.seeds: given item x, allowed: 0 to'),
    ],
)
def test_an_override_that_cannot_be_applied(cli, tiny, override, said):
    assert one_line(cli('train', tiny, '-o', override)).startswith(said.format(file=tiny))


def test_a_sweep_has_at_most_a_hundred_seeds(cli, tiny):
    error = one_line(cli('train', tiny, '-o', f'sweep.seeds={list(range(101))}'))
    assert ', allowed: a list with at least 1 item and at most 100, each an integer' in error
    assert len(error) <= 300


def test_a_sweep_without_a_sweep(cli, tiny):
    error = one_line(cli('sweep', tiny, '-o', 'sweep=null'))
    assert error.startswith(f'{tiny}: sweep: missing, allowed: a mapping with the keys seeds')


@pytest.mark.parametrize('device', ['@cupy:99', '@nothing', 'nothing'])
def test_a_device_that_is_not_there(cli, tiny, device):
    error = one_line(cli('train', tiny, '--device', device))
    assert error.startswith(f'--device {device}: ') and 'allowed: @numpy' in error


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['train', 'x.yaml', '--threads', '0'], "--threads: given '0', allowed: an integer >= 1"),
        (['train', 'x.yaml', '--bogus'], '--bogus'),
        (['schema', 'x.yaml'], 'x.yaml'),
        (['retrain'], "invalid choice: 'retrain'"),
    ],
)
def test_a_command_line_that_makes_no_sense(cli, arguments, said):
    assert said in one_line(cli(*arguments))


@pytest.mark.parametrize(
    'arguments, said',
    [
        ([], 'COMMAND'),
        (['train'], 'CONFIG'),
        (['sweep', 'configs/none.yaml'], 'configs/none.yaml: No such file'),
        (['train', 'configs/digits_mlp.yaml', '-o', 'train.epochs=-1'], 'train.epochs: given -1'),
    ],
)
def test_the_same_from_a_shell(arguments, said):
    done = subprocess.run(
        [sys.executable, '-m', 'experiments', *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert said in one_line((done.returncode, done.stdout, done.stderr))
