"""Chainer's own examples train in mixed precision with their optimizer lines changed.

They are written anew from Chainer's documentation, with small local data, in ``examples``.
"""

import pathlib
import re
import runpy

import chainerlp

import chainer
import numpy
import pytest

EXAMPLES = pathlib.Path(__file__).with_name('examples')

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
        numpy.random.seed(0)
        with chainer.using_config('dtype', chainer.mixed16), ScaledUses() as uses:
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


# `loss.backward()` becomes `optimizer.backward(loss)` where an example calls it: in one of them.
CHANGED = [
    r'import chainerlp',
    r'optimizer = chainerlp\.AdaptiveLossScaling\(chainer\.optimizers\.\w+\(.*\)\)',
    r'optimizer\.add_hook\(chainerlp\.optimizer_hooks\.GradientClipping\(.*\)\)',
]


@pytest.mark.parametrize('path', sorted(EXAMPLES.glob('*.py')), ids=lambda path: path.stem)
def test_only_the_import_and_the_optimizer_lines_of_an_example_are_changed(path):
    lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
    for line in lines:
        if 'chainerlp' in line:
            assert any(re.fullmatch(pattern, line) for pattern in CHANGED), line
    expected = ['optimizer.backward(loss)'] if path.stem == 'train_ptb' else []
    assert [line for line in lines if 'backward(' in line and 'unchain' not in line] == expected
