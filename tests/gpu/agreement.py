"""What a function gives on a device, against what it gives on the CPU in float64.

The bounds are those of rounding. Arrays of both runs hold the same numbers, so a result of the
device differs by the roundings on its way: each by u = 2^-11 (fp16) or 2^-24 (float32) of what was
rounded, or by half the smallest subnormal, 2^-25 or 2^-150. Sums are taken in float32 or wider,
and every further term adds 2^-24.
"""

import dataclasses
from typing import Callable

import chainer
import numpy

CPU = chainer.get_device('@numpy')
UNIT = {'float16': 2.0**-11, 'float32': 2.0**-24}
SUBNORMAL = {'float16': 2.0**-24, 'float32': 2.0**-149}
SPECIAL = (0.0, -0.0, 2.0**-24, -(2.0**-24), 2.0**-14, 65504.0, -65504.0)
NONFINITE = (numpy.inf, -numpy.inf, numpy.nan)


def gradients(size, dtype, *, special=SPECIAL, seed=0):
    """Gradients over 30 powers of two, subnormals and zeros among them."""
    rng = numpy.random.RandomState(seed)
    array = rng.standard_normal(size) * 2.0 ** rng.randint(-26, 4, size)
    with numpy.errstate(over='ignore'):
        array = array.astype(dtype)
    places = rng.permutation(size)[: len(special)]
    array[places] = special[: len(places)]
    return array


def scalar(device, value):
    """Returns a number as a total scale is on a device."""
    return device.send(numpy.array(value, numpy.float32))


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, its inputs, and how far it may be off.

    Attributes:
        function: Takes variables for the inputs of type float and arrays for the others; returns a
            variable or a tuple of them.
        inputs: Shapes of inputs with normally distributed values; or arrays, as they are.
        roundings: How often a result is rounded to its type on its way; 0 means that it is exact.
        terms: How many terms are added up in float32 on the way.
        linear: Whether the function is linear in each input. Then results are rounded in
            proportion to what they would be if nothing cancelled; others to the largest of theirs.
    """

    function: Callable
    inputs: tuple
    roundings: int
    terms: int = 0
    linear: bool = False


def rounded_inputs(inputs, dtype, seed=0):
    """Returns the inputs as arrays; those given by their shapes get values that fp16 can hold."""
    random = numpy.random.RandomState(seed)
    return [
        array if isinstance(array, numpy.ndarray) else random.standard_normal(array).astype(dtype)
        for array in inputs
    ]


def outcome(function, arrays, device, gradients=None):
    """Runs a function forward and backward.

    Args:
        function: See :class:`Case`.
        arrays: NumPy's.
        device: Chainer's device to run on.
        gradients: The gradients of the outputs, NumPy's; ``None`` for no backward pass.

    Returns:
        list: NumPy arrays: the outputs, then the gradients of the inputs of type float.
    """
    with chainer.using_device(device):
        sent = [device.send(array) for array in arrays]
        sent = [chainer.Variable(array) if array.dtype.kind == 'f' else array for array in sent]
        outputs = function(*sent)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        results = list(outputs)
        if gradients is not None:
            inputs = [variable for variable in sent if isinstance(variable, chainer.Variable)]
            results += chainer.grad(
                outputs, inputs, [chainer.Variable(device.send(gy)) for gy in gradients]
            )
        return [CPU.send(result.array) for result in results]


def assert_agrees(case, dtype, device):
    """Checks a function's values, its gradients and their types on a device.

    Args:
        case (Case): The function.
        dtype (str): The type of the inputs that are given by their shapes.
        device: Chainer's device.
    """
    arrays = rounded_inputs(case.inputs, dtype)
    wide = [array.astype('d') if array.dtype.kind == 'f' else array for array in arrays]
    outputs = outcome(case.function, wide, CPU)
    gradients = rounded_inputs([y.shape for y in outputs], dtype, seed=1)
    wide_gradients = [gy.astype('d') for gy in gradients]
    expected = outcome(case.function, wide, CPU, wide_gradients)
    magnitudes = [numpy.abs(array).max(initial=0) for array in expected]
    if case.linear:
        absolute = [numpy.abs(array) if array.dtype.kind == 'f' else array for array in wide]
        magnitudes = outcome(case.function, absolute, CPU, [abs(gy) for gy in wide_gradients])
    actual = outcome(case.function, arrays, device, gradients)
    types = [dtype] * len(outputs) + [str(a.dtype) for a in arrays if a.dtype.kind == 'f']
    assert [str(array.dtype) for array in actual] == types
    for value, exact, magnitude in zip(actual, expected, magnitudes):
        kind = str(value.dtype)
        relative = case.roundings * UNIT[kind] + (case.roundings and case.terms * 2.0**-24)
        bound = relative * magnitude + case.roundings * SUBNORMAL[kind]
        error = numpy.abs(value.astype('d') - exact)
        assert value.shape == exact.shape
        assert numpy.all(error <= bound), f'off by {error.max()}, bound {numpy.max(bound)}'
