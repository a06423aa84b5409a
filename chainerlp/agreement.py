"""One total scale for what many workers are about to add, each of which brought its own.

The rule is that of joins (design, section 1), across workers: the largest of their scales at which
the sum of their largest magnitudes stays in the format, or the largest power of two at which it
does. So a mean is not lost where a gradient is small, and not inf where only the sum, which
ChainerMN forms first, would be too large. Who has no gradient, or only zeros, has no say.
"""

from chainerlp import formats, kernels

import chainer
import numpy
from chainer import backend

_NO_GRADIENT = 0.0


def agree(magnitudes, scales, dtypes, communicator):
    """Agrees with the other workers on a scale for each of some gradients.

    All workers call it alike. It takes one message of two numbers a gradient, from host memory, so
    that any MPI will do; on a GPU it waits for the device, once.

    Args:
        magnitudes (list): The largest magnitude in what each gradient holds, its scale included: a
            number, or a 0-d array on the device.
        scales (list): The total scales that they carry: floats, or 0-d arrays on the device;
            ``None`` where this worker has no gradient.
        dtypes (list of numpy.dtype): What each is added up in.
        communicator (~chainermn.CommunicatorBase): The workers.

    Returns:
        list: The scale for each gradient, a float, the same on all workers; ``None`` where no
        worker has a gradient.
    """
    own = numpy.zeros((2, len(scales)))
    own[0] = _on_host(magnitudes)
    own[1] = _on_host([_NO_GRADIENT if scale is None else scale for scale in scales])
    everyones = numpy.empty((communicator.size, *own.shape))
    communicator.mpi_comm.Allgather(own, everyones)
    limits = [_limit(dtype, communicator.size) for dtype in dtypes]
    common = _choose(everyones[:, 0], everyones[:, 1], numpy.array(limits))
    return [None if scale == _NO_GRADIENT else scale for scale in common.tolist()]


def largest_magnitude(array):
    """Returns max|x| of a float array, as a number or a 0-d array on its device."""
    if True:
        return kernels.largest_magnitude(array)
    xp = backend.get_array_module(array)
    return xp.abs(array).max() if array.size else 0.0


def _limit(dtype, workers):
    # Each worker's share is rounded when it is rescaled, and so is each of the sums after it.
    number_format = formats.get(numpy.dtype(dtype).name)
    return number_format.largest * (1 - number_format.relative_rounding) ** workers


def _choose(magnitudes, scales, limits):
    """Chooses the scales.

    Args:
        magnitudes (numpy.ndarray): Shape (workers, gradients).
        scales (numpy.ndarray): Of the same shape; 0 where a worker has no gradient.
        limits (numpy.ndarray): What the sum of the magnitudes must not exceed, for each gradient.

    Returns:
        numpy.ndarray: A scale for each gradient; 0 where there is none.
    """
    has_gradient = scales > _NO_GRADIENT
    has_say = has_gradient & (magnitudes != 0)
    with numpy.errstate(all='ignore'):
        total = numpy.where(has_say, magnitudes / scales, 0).sum(axis=0)
        highest = numpy.where(has_say, scales, 0).max(axis=0)
        fits = kernels.floor_power_of_two(limits / total)
        chosen = numpy.where(total * highest <= limits, highest, fits)
    # What is not finite stays so at any scale, and so do zeros.
    lowest = numpy.where(has_gradient, scales, numpy.inf).min(axis=0)
    is_free = ~numpy.isfinite(total) | ~has_say.any(axis=0)
    return numpy.where(has_gradient.any(axis=0), numpy.where(is_free, lowest, chosen), _NO_GRADIENT)


def _on_host(values):
    is_on_device = [hasattr(value, 'ndim') and not _is_numpy(value) for value in values]
    arrays = [value for value, on_device in zip(values, is_on_device) if on_device]
    if not arrays:
        return [float(value) for value in values]
    with chainer.using_device(backend.get_device_from_array(arrays[0])):
        xp = backend.get_array_module(arrays[0])
        together = xp.stack([array.astype(numpy.float64) for array in arrays])
        fetched = iter(backend.CpuDevice().send(together).tolist())
    return [next(fetched) if there else float(value) for value, there in zip(values, is_on_device)]


def _is_numpy(value):
    return isinstance(value, (numpy.ndarray, numpy.generic))
