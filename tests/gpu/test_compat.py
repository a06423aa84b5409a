"""What Chainer computes on a GPU with the patches for CuPy 14, and without them on CuPy 13."""

from tests.gpu.agreement import CPU, SUBNORMAL, UNIT, Case, assert_agrees

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest

pytestmark = pytest.mark.gpu

LABELS = numpy.array([0, 1, 2, -1, 3, 1], 'i')
# The label itself, which negative_sampling puts there, and two samples.
SAMPLES = numpy.column_stack([LABELS, [[1, 2], [0, 3], [3, 3], [2, 1], [1, 1], [0, 2]]]).astype('i')


def negative_sampling(x, t, W):
    return F.negative_sampling(x, t, W, lambda shape: x.xp.array(SAMPLES), 2, reduce='no')


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_negative_sampling_is_that_of_the_cpu(device, dtype):
    # A logistic loss of a product of 5 terms; at most 15 such add to a row, each a rounding.
    # The GPU's fast exponential and logarithm are good to about 2^-21.
    case = Case(negative_sampling, ((6, 5), LABELS, (4, 5)), 24, 5 + 2**4)
    assert_agrees(case, dtype, device)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_hierarchical_softmax_is_that_of_the_cpu(device, dtype):
    random = numpy.random.RandomState(0)
    x, W = (random.standard_normal(shape).astype(dtype) for shape in [(6, 5), (3, 5)])
    t = numpy.array([0, 1, 2, 3, 1, 1], 'i')
    results = []
    for where, kind in ((CPU, 'd'), (device, dtype)):
        with chainer.using_config('dtype', numpy.dtype(kind)):
            tree = L.BinaryHierarchicalSoftmax.create_huffman_tree({0: 8, 1: 5, 2: 6, 3: 4})
            link = L.BinaryHierarchicalSoftmax(5, tree)
        link.W.array[...] = W
        link.to_device(where)
        link.cleargrads()
        variable = chainer.Variable(where.send(x.astype(kind)))
        loss = link(variable, where.send(t))
        loss.backward()
        assert loss.dtype == variable.grad.dtype == link.W.grad.dtype == kind
        results.append([CPU.send(a) for a in (loss.array, variable.grad, link.W.grad)])
    for expected, actual in zip(*results):
        # As above; at most six samples pass a node, and two nodes lie on a path.
        bound = 24 * (UNIT[dtype] * abs(expected).max() + SUBNORMAL[dtype])
        numpy.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def test_padding_of_minus_one_is_the_largest_unsigned_number(device):
    arrays = [device.send(numpy.array(values, 'B')) for values in ([1, 2], [3])]
    assert CPU.send(F.pad_sequence(arrays, padding=-1).array).tolist() == [[1, 2], [3, 255]]
    padded = chainer.dataset.concat_examples(arrays, padding=-1)
    assert CPU.send(padded).tolist() == [[1, 2], [3, 255]]


@pytest.mark.parametrize('kind', [numpy.float32, numpy.float64])
def test_numpy_scalars_do_for_python_numbers(device, kind):
    x = chainer.Variable(device.send(numpy.linspace(-1, 1, 12).reshape(3, 4).astype('e')))
    scale, shift = (device.send(numpy.full(4, value, 'e')) for value in (1, 0))
    for run in (
        lambda scalar: F.clip(x, scalar(-0.5), scalar(0.25)),
        lambda scalar: F.huber_loss(x, 0 * x, scalar(0.5), reduce='no'),
        lambda scalar: F.layer_normalization(x, scale, shift, eps=scalar(1e-3)),
    ):
        results = []
        for scalar in (float, kind):
            x.cleargrad()
            y = run(scalar)
            y.grad = device.xp.ones_like(y.array)
            y.backward()
            assert y.dtype == x.grad.dtype == 'float16'
            results.append((CPU.send(y.array), CPU.send(x.grad)))
        numpy.testing.assert_array_equal(*results)


def test_the_log_probability_of_a_category_is_that_of_the_cpu(device):
    probabilities = numpy.random.RandomState(0).dirichlet(numpy.ones(4), 3).astype('f')
    x = numpy.array([1, 3, 0], 'i')
    distribution = chainer.distributions.Categorical(p=device.send(probabilities))
    actual = CPU.send(distribution.log_prob(device.send(x)).array)
    numpy.testing.assert_allclose(actual, numpy.log(probabilities[range(3), x]), rtol=1e-6)


class Mixed(chainer.Link):
    """Parameters of three types, of odd sizes."""

    def __init__(self, dtypes='efd'):
        super().__init__()
        random = numpy.random.RandomState(0)
        with self.init_scope():
            for i, dtype in enumerate(dtypes):
                values = random.standard_normal(3 + 2 * i).astype('e').astype(dtype)
                setattr(self, f'p{i}', chainer.Parameter(values))
        for param in self.params():
            param.grad = 2 * param.array


def test_gradients_are_gathered_and_parameters_scattered(device):
    from chainer.training.updaters import multiprocess_parallel_updater

    model = Mixed('efe')
    expected = numpy.concatenate([p.array for _, p in sorted(model.namedparams())])
    model.to_device(device)
    gathered = multiprocess_parallel_updater.gather_grads(model)
    assert gathered.dtype == 'float32'
    numpy.testing.assert_array_equal(CPU.send(gathered), 2 * expected)
    multiprocess_parallel_updater.scatter_params(model, gathered)
    again = multiprocess_parallel_updater.gather_params(model)
    numpy.testing.assert_array_equal(CPU.send(again), 2 * expected)
    assert [p.dtype for _, p in sorted(model.namedparams())] == ['e', 'f', 'e']


@pytest.mark.parametrize('batched', [False, True])
@pytest.mark.parametrize('dtype', ['e', 'f', 'd'])
def test_parameters_are_packed_and_unpacked_by_chainermn(device, dtype, batched):
    pytest.importorskip('mpi4py')
    from chainermn.communicators import _memory_utility as memory

    model = Mixed()
    model.to_device(device)
    params = memory.extract_params_set_data(model)
    expected = numpy.concatenate([CPU.send(param.array).astype(dtype) for param in params])
    buffer = memory.DeviceMemory()
    buffer.assign(expected.nbytes)
    if batched:
        data = memory.ParamsData(params, 'data', False)
        memory._batched_pack_params(data, buffer, numpy.dtype(dtype))
    else:
        memory.pack_params(params, 'data', buffer, numpy.dtype(dtype), False)
    numpy.testing.assert_array_equal(CPU.send(buffer.array(expected.shape, dtype=dtype)), expected)
    # Twice as much comes back.
    doubled = buffer.array(expected.shape, dtype=dtype)
    doubled *= 2
    if batched:
        memory._batched_unpack_params(data, buffer, numpy.dtype(dtype))
    else:
        memory.unpack_params(params, 'data', buffer, numpy.dtype(dtype), False)
    for param, kind in zip(params, 'efd'):
        assert param.dtype == kind
    actual = numpy.concatenate([CPU.send(param.array).astype('d') for param in params])
    numpy.testing.assert_array_equal(actual, 2 * expected)
