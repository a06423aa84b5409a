"""The examples train.

Chainer's own, written anew from its documentation with small local data, do so in mixed precision
with their optimizer lines changed.
"""

import pathlib
import re
import runpy

import chainerlp

import chainer
import numpy
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / 'examples'

LINEAR = 'ScaledLinearFunction'
CONVOLUTION = 'ScaledConvolution2DFunction'
DECONVOLUTION = 'ScaledDeconvolution2DFunction'


class ScaledUses(chainer.FunctionHook):
    """Notes the kinds of functions that took part in a scaled pass, and what they chose."""

    name = 'ScaledUses'

    def __init__(self):
        self.kinds = set()
        self.scales = []

    def backward_postprocess(self, function, in_data, out_grad):
        if isinstance(function, chainerlp.functions.ScaledFunction):
            assert function.total_scale is not None  # it would be under loss.backward()
            self.kinds.add(type(function).__name__)
            self.scales.append(float(function.scale))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs an example with arguments; returns what it returns, and a :class:`ScaledUses`."""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(chainer.global_config, 'dtype', numpy.dtype('f'))  # restored later
        numpy.random.seed(0)
        with ScaledUses() as uses:
            main = runpy.run_path(str(EXAMPLES / f'{name}.py'))['main']
            return main([str(argument) for argument in arguments]), uses

    return run


def losses(trainer, key='main/loss'):
    values = [entry[key] for entry in trainer.get_extension('LogReport').log]
    assert numpy.isfinite(values).all()
    return values


def check_trained(optimizer, skipped=0):
    assert optimizer.skipped == skipped and optimizer.t > 0
    for path, param in optimizer.target.namedparams():
        assert numpy.isfinite(param.array).all(), path


def main_optimizer(trainer):
    return trainer.updater.get_optimizer('main')


def test_mnist_under_a_trainer(run, tmp_path):
    trainer, uses = run('train_mnist', '--epoch', 4, '--unit', 100, '--out', tmp_path)
    check_trained(main_optimizer(trainer))
    assert uses.kinds == {LINEAR}
    assert losses(trainer)[-1] < losses(trainer)[0] / 2
    assert losses(trainer, 'validation/main/accuracy')[-1] > 0.7
    assert (tmp_path / 'cg.dot').exists()


def test_mnist_under_a_trainer_resumes(run, tmp_path):
    options = ('--unit', 100, '--out', tmp_path)
    run('train_mnist', '--epoch', 2, *options)
    snapshot = tmp_path / 'snapshot_iter_30'
    trainer, _ = run('train_mnist', '--epoch', 3, '--resume', snapshot, *options)
    check_trained(main_optimizer(trainer))
    assert trainer.updater.iteration == 45
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_mnist_in_a_loop_of_ones_own(run, tmp_path):
    (optimizer, training, accuracies), uses = run(
        'train_mnist_custom_loop', '--epoch', 4, '--unit', 100
    )
    check_trained(optimizer)
    assert uses.kinds == {LINEAR}
    assert training[-1] < training[0] / 2 and accuracies[-1] > 0.7
    assert {'mlp.model', 'mlp.state'} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_a_vgg_on_small_images(run):
    trainer, uses = run('train_cifar', '--batchsize', 4, '--iteration', 5)
    check_trained(main_optimizer(trainer))
    assert uses.kinds == {LINEAR, CONVOLUTION}
    # The first thing to learn is that eight of the ten classes never come.
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_a_recurrent_language_model(run):
    trainer, uses = run(
        'train_ptb', '--unit', 32, '--batchsize', 10, '--bproplen', 8, '--epoch', 30
    )
    check_trained(main_optimizer(trainer))
    assert uses.kinds == {LINEAR}
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_a_dcgan(run):
    trainer, uses = run('train_dcgan', '--ch', 16, '--batchsize', 10, '--iteration', 6)
    both = trainer.updater.get_all_optimizers()
    assert set(both) == {'gen', 'dis'}
    for optimizer in both.values():
        check_trained(optimizer)
    assert uses.kinds == {LINEAR, CONVOLUTION, DECONVOLUTION} and max(uses.scales) > 1
    assert len(losses(trainer, 'gen/loss')) == len(losses(trainer, 'dis/loss')) == 6


@pytest.mark.parametrize('out_type', ['original', 'ns', 'hsm'])
def test_word2vec(run, out_type):
    # With a window of 1 every epoch has the same pairs, so that sums of losses can be compared.
    trainer, uses = run('train_word2vec', '-u', 32, '-w', 1, '-b', 20, '-e', 40, '-o', out_type)
    check_trained(main_optimizer(trainer))
    # The other two losses are made of no layer that could scale: they go straight to the vectors.
    assert uses.kinds == ({LINEAR} if out_type == 'original' else set())
    assert numpy.mean(losses(trainer)[-10:]) < 0.98 * numpy.mean(losses(trainer)[:10])


def test_a_float32_model_computes_in_float16(run, tmp_path):
    trainer, uses = run('train_float32', '--epoch', 4, '--unit', 100, '--out', tmp_path)
    check_trained(main_optimizer(trainer))
    assert {param.dtype.name for param in main_optimizer(trainer).target.params()} == {'float32'}
    assert uses.kinds == {LINEAR} and max(uses.scales) > 1
    assert losses(trainer, 'validation/main/accuracy')[-1] > 0.7


def test_which_layers_underflow_is_drawn_and_told(run, tmp_path, capsys):
    (diagnosis, rows), _ = run('which_layers_underflow', '--epoch', 2, '--out', tmp_path)
    assert 'float16 (2^-24 to 65504)' in capsys.readouterr().out
    assert {row.layer for row in diagnosis.of('float16')} == {row.layer for row in rows}
    assert max(row.underflow for row in rows) > 1e-3
    assert (tmp_path / 'underflow.png').stat().st_size > 0


# `loss.backward()` becomes `optimizer.backward(loss)` where an example calls it: in one of them.
CHANGED = [
    r'import chainerlp',
    r'chainer\.global_config\.dtype = chainer\.mixed16',
    r'optimizer = chainerlp\.AdaptiveLossScaling\(chainer\.optimizers\.\w+\(.*\)\)',
    r'optimizer\.add_hook\(chainerlp\.optimizer_hooks\.GradientClipping\(.*\)\)',
]


OURS = ('train_float32', 'which_layers_underflow')


@pytest.mark.parametrize(
    'path',
    [path for path in sorted(EXAMPLES.glob('*.py')) if path.stem not in OURS],
    ids=lambda path: path.stem,
)
def test_only_the_import_and_the_optimizer_lines_of_an_example_are_changed(path):
    lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
    for line in lines:
        if 'chainerlp' in line:
            assert any(re.fullmatch(pattern, line) for pattern in CHANGED), line
    expected = ['optimizer.backward(loss)'] if path.stem == 'train_ptb' else []
    assert [line for line in lines if 'backward(' in line and 'unchain' not in line] == expected
