"""Means of fp16 values are right in the log, in the evaluation, and after a resume."""

import json
import math

import chainer
import numpy
import pytest
from chainer import training
from chainer.backends import cuda
from chainer.training import extensions
from hypothesis import given
from hypothesis import strategies as st

# On NumPy 1 without CuPy it is not patched: most of these claims hold of Chainer as it is.
is_chainers_own = not hasattr(chainer.Summary.add, '__wrapped__')

fp16_numbers = st.floats(width=16, allow_nan=False, allow_infinity=False)


def summarize(values, weights=None):
    summary = chainer.Summary()
    for value, weight in zip(values, weights or [1] * len(values)):
        summary.add(value, weight)
    return summary


KINDS = [numpy.float16, lambda x: numpy.array(x, numpy.float16)]


@pytest.mark.parametrize('kind', KINDS, ids=['scalar', '0-d array'])
@pytest.mark.parametrize(
    'value, count', [(1.0, 4096), (0.625, 5000), (60.0, 100), (2.0**-24, 3000)]
)
def test_equal_values_have_that_mean_and_no_deviation(kind, value, count):
    # In double, sums of so few equal fp16 numbers and of their squares are exact.
    assert summarize([kind(value)] * count).make_statistics() == (value, 0.0)


@given(st.lists(fp16_numbers, min_size=1, max_size=50))
def test_the_mean_is_the_exact_sum_divided_once(values):
    # fp16 numbers are multiples of 2^-24 below 2^16: a double holds the sum of 2^13 of them.
    mean = summarize([numpy.float16(value) for value in values]).compute_mean()
    assert mean == math.fsum(values) / len(values)


@given(st.lists(fp16_numbers, min_size=1, max_size=50))
def test_squares_do_not_overflow(values):
    mean, std = summarize([numpy.float16(value) for value in values]).make_statistics()
    # x2/n - mean² cancels: each of the two is off by at most (n + 2) 2^-53 of E[x²].
    second_moment = math.fsum(value * value for value in values) / len(values)
    error = 2 * (len(values) + 2) * 2.0**-53 * second_moment
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    if math.isnan(std):  # a variance that came out below zero
        assert variance <= error
    else:
        assert abs(std**2 - variance) <= 2 * error


WEIGHTS = {
    'int': int,
    'int64': numpy.int64,
    'float': float,
    'float32': numpy.float32,
    'int8': numpy.int8,
    'float16': numpy.float16,
    '0-d float16': KINDS[1],
}


@pytest.mark.parametrize('kind', WEIGHTS)
def test_weights_of_any_type_are_added_up_without_loss(kind):
    if is_chainers_own and kind in ('int8', 'float16', '0-d float16'):
        pytest.skip('Chainer on NumPy 1 multiplies such weights in fp16')
    kind = WEIGHTS[kind]
    # 700 · 100 is beyond fp16, and the weights' sum, 8000, beyond int8 and fp16's integers.
    values = [numpy.float16(700), numpy.float16(300)] * 40
    mean, std = summarize(values, [kind(100)] * 80).make_statistics()
    assert (mean, std) == (500.0, 200.0)
    mean = summarize(values, [kind(75), kind(25)] * 40).compute_mean()
    assert mean == 600.0


def test_other_numbers_are_added_as_before():
    assert summarize([1, 2.5]).make_statistics() == (1.75, 0.75)
    assert type(summarize([1.0, 2.0]).compute_mean()) is float
    assert summarize([numpy.float64(1e99), 1e99], [0.5, 0.5]).compute_mean() == 1e99
    assert summarize([numpy.int8(100)] * 100).make_statistics() == (100.0, 0.0)
    assert math.isnan(summarize([numpy.float16('nan'), 1.0]).compute_mean())
    assert summarize([numpy.float16('inf'), 1.0]).compute_mean() == math.inf


def test_float32_values_are_added_up_in_double():
    value = numpy.float32(0.1)
    # In fp32, 10,000 additions to a sum of up to 1000 would be off by about 1e-5.
    assert summarize([value] * 10000).compute_mean() == pytest.approx(float(value), rel=1e-12)


def test_a_dict_summary_takes_variables_scalars_and_weighted_values():
    summary = chainer.DictSummary()
    for _ in range(4096):
        summary.add(
            {
                'variable': chainer.Variable(numpy.array(1, numpy.float16)),
                'scalar': numpy.float16(60),
                'weighted': (chainer.Variable(numpy.array(700, numpy.float16)), 100),
                'weighted_by_variable': (
                    numpy.float16(1),
                    chainer.Variable(numpy.array(1, numpy.float16)),
                ),
                'vector': numpy.ones(2),  # is left out
            }
        )
    assert summary.make_statistics() == {
        'variable': 1.0,
        'variable.std': 0.0,
        'scalar': 60.0,
        'scalar.std': 0.0,
        'weighted': 700.0,
        'weighted.std': 0.0,
        'weighted_by_variable': 1.0,
        'weighted_by_variable.std': 0.0,
    }


@pytest.mark.skipif(is_chainers_own, reason='Chainer adds the graph')
def test_a_variable_adds_its_value_and_not_its_graph():
    summary = summarize([chainer.Variable(numpy.array(1, numpy.float16))] * 4096)
    assert summary.compute_mean() == 1.0
    assert not isinstance(summary.compute_mean(), chainer.Variable)


class Reporting(training.Updater):
    """An updater that reports an fp16 loss of one, and does nothing else."""

    def __init__(self):
        self.iteration = 0
        self.epoch = 0

    def connect_trainer(self, trainer):
        pass

    def get_all_optimizers(self):
        return {}

    def finalize(self):
        pass

    def update(self):
        self.iteration += 1
        chainer.report({'loss': chainer.Variable(numpy.array(1, numpy.float16))})

    def serialize(self, serializer):
        self.iteration = serializer('iteration', self.iteration)


def make_trainer(folder, iterations):
    trainer = training.Trainer(Reporting(), (iterations, 'iteration'), out=str(folder))
    trainer.extend(extensions.LogReport(trigger=(4096, 'iteration')))
    return trainer


def logged(folder):
    return [entry['loss'] for entry in json.loads((folder / 'log').read_text())]


def test_the_log_has_the_right_mean(tmp_path):
    make_trainer(tmp_path, 4096).run()
    assert logged(tmp_path) == [1.0]


def test_the_log_has_the_right_mean_after_a_resume(tmp_path):
    trainer = make_trainer(tmp_path, 3000)
    trainer.run()
    chainer.serializers.save_npz(tmp_path / 'snapshot.npz', trainer)
    trainer = make_trainer(tmp_path, 4096)
    chainer.serializers.load_npz(tmp_path / 'snapshot.npz', trainer)
    trainer.run()
    assert logged(tmp_path) == [1.0]


def test_a_snapshot_with_sums_in_fp16_can_be_resumed(tmp_path):
    numpy.savez(tmp_path / 'old.npz', _x=numpy.float16(2048), _x2=numpy.float16(2048), _n=2048)
    summary = chainer.Summary()
    chainer.serializers.load_npz(tmp_path / 'old.npz', summary)
    for _ in range(2048):
        summary.add(numpy.float16(1))
    assert summary.make_statistics() == (1.0, 0.0)


def test_counts_in_numpy_integers_can_be_resumed(tmp_path):
    chainer.serializers.save_npz(
        tmp_path / 'new.npz', summarize([numpy.float16(1)] * 3, [numpy.int32(2)] * 3)
    )
    summary = chainer.Summary()
    chainer.serializers.load_npz(tmp_path / 'new.npz', summary)
    summary.add(numpy.float16(3), 2)
    assert summary.compute_mean() == 1.5


def test_the_evaluator_has_the_right_mean():
    def evaluate(array):
        chainer.report({'loss': chainer.Variable(array.astype(numpy.float16).reshape(()))}, link)

    link = chainer.Link()
    iterator = chainer.iterators.SerialIterator(
        numpy.full((5000, 1), 0.625, 'f'), 1, repeat=False, shuffle=False
    )
    evaluator = extensions.Evaluator(iterator, link, eval_func=evaluate)
    assert evaluator()['main/loss'] == 0.625


class ElsewhereArray:
    """A 0-d array that keeps its type among Python numbers, as CuPy's, and may not be read."""

    ndim = 0

    def __init__(self, held):
        self.held = held
        self.dtype = held.dtype

    def astype(self, dtype):
        return ElsewhereArray(self.held.astype(dtype))

    def _with(self, operate, other):
        other = other.held if isinstance(other, ElsewhereArray) else self.dtype.type(other)
        return ElsewhereArray(numpy.asarray(operate(self.held, other)))

    def __mul__(self, other):
        return self._with(numpy.multiply, other)

    def __add__(self, other):
        return self._with(numpy.add, other)

    __rmul__, __radd__ = __mul__, __add__

    def wait(self, *args, **kwargs):
        raise AssertionError('the value was brought to the host')

    __float__ = __int__ = __bool__ = __array__ = item = wait


@pytest.mark.skipif(is_chainers_own, reason='Chainer adds them in fp16')
def test_fp16_values_on_a_device_are_added_up_there_in_fp32():
    value = ElsewhereArray(numpy.array(300, numpy.float16))
    summary = summarize([value] * 2500)
    assert summary._x.dtype == summary._x2.dtype == numpy.float32
    assert summary._x.held == 300 * 2500
    assert summary._x2.held == 300**2 * 2500  # 2500 · 5625 · 2^4: exact in 24 bits


@pytest.mark.gpu
def test_fp16_values_on_a_gpu_are_added_up_there_in_fp32():
    cupy = cuda.cupy
    mean, std = summarize([cupy.array(60, numpy.float16)] * 4096).make_statistics()
    assert isinstance(mean, cupy.ndarray) and mean.dtype == numpy.float32
    assert (float(mean), float(std)) == (60.0, 0.0)
