"""The window of gy's positions that an element of gx sums over, in convolutions of all kinds."""

import dataclasses

import numpy

MOST_AXES = 3


@dataclasses.dataclass(frozen=True)
class Window:
    """For each position of gx, which positions of gy belong to it.

    All tuples have a number for each of one to three spatial axes.

    Attributes:
        gy_size (tuple of int): The spatial size of gy.
        gx_size (tuple of int): The spatial size of gx.
        kernel (tuple of int): How many positions of gy a position of gx has at most.
        stride (tuple of int): That of the convolution, like the following.
        pad (tuple of int): See above.
        dilate (tuple of int): See above.
        groups (int): Number of groups of channels, each with sums of its own.
        is_convolved (bool): Whether gx is a convolution of gy, as that of a deconvolution is,
            instead of the transpose of one.
    """

    gy_size: tuple
    gx_size: tuple
    kernel: tuple
    stride: tuple
    pad: tuple
    dilate: tuple
    groups: int = 1
    is_convolved: bool = False

    def sums(self, array):
        """Returns the sums over the window of each position of gx.

        Args:
            array (ndarray): Numbers of NumPy for the positions of gy, of shape (..., *gy_size).

        Returns:
            ndarray: Of shape (..., *gx_size).
        """
        sum_along = _convolved if self.is_convolved else _transposed
        leading = array.ndim - len(self.kernel)
        of_axes = self.gx_size, self.kernel, self.stride, self.pad, self.dilate
        for axis, (size, kernel, stride, pad, dilate) in enumerate(zip(*of_axes), leading):
            if (kernel, stride, pad) != (1, 1, 0):
                array = sum_along(array, axis, size, kernel, stride, pad, dilate)
        return array


def of_each_position(size):
    """Returns the window of one position: that of gradients which are gy's own elements.

    Args:
        size (tuple of int): The spatial size; ``None`` is returned if it has no or too many axes.
    """
    if not 1 <= len(size) <= MOST_AXES:
        return None
    ones, zeros = (1,) * len(size), (0,) * len(size)
    return Window(size, size, ones, ones, zeros, ones)


def _transposed(array, axis, size, kernel, stride, pad, dilate):
    reach = (array.shape[axis] - 1) * stride + 1
    padded = _zeros(array, axis, max(reach + (kernel - 1) * dilate, pad + size))
    for start in range(0, kernel * dilate, dilate):
        padded[_part(axis, start, start + reach, stride)] += array
    return padded[_part(axis, pad, pad + size)]


def _convolved(array, axis, size, kernel, stride, pad, dilate):
    reach = (size - 1) * stride + 1
    padded = _zeros(array, axis, max(reach + (kernel - 1) * dilate, pad + array.shape[axis]))
    padded[_part(axis, pad, pad + array.shape[axis])] = array
    starts = range(0, kernel * dilate, dilate)
    return sum(padded[_part(axis, start, start + reach, stride)] for start in starts)


def _zeros(array, axis, size):
    shape = array.shape[:axis] + (size,) + array.shape[axis + 1 :]
    return numpy.zeros(shape, array.dtype)


def _part(axis, start, stop, step=1):
    return (slice(None),) * axis + (slice(start, stop, step),)


CUDA_WINDOW = r"""
// A Window of chainerlp.window, of three axes.
struct Window {
    int gy_size[3], gx_size[3], kernel[3], stride[3], pad[3], dilate[3], is_convolved;

    // Returns which position of gy, along an axis, is number k of gx's x; or -1 for none.
    __device__ int at(int axis, int x, int k) const {
        int y;
        if (is_convolved) y = x * stride[axis] - pad[axis] + k * dilate[axis];
        else {
            y = x + pad[axis] - k * dilate[axis];
            if (y < 0 || y % stride[axis] != 0) return -1;
            y /= stride[axis];
        }
        return y < gy_size[axis] ? y : -1;
    }

    // Returns the sum of squares over the window of a position of gx. Other blocks may have written
    // them: `volatile`, past this one's cache.
    __device__ double sum_of_squares(const volatile float* roots, int position) const {
        const int x2 = position % gx_size[2], x1 = position / gx_size[2] % gx_size[1];
        const int x0 = position / gx_size[2] / gx_size[1];
        double sum = 0;
        for (int k0 = 0; k0 < kernel[0]; ++k0) {
            const int y0 = at(0, x0, k0);
            if (y0 < 0) continue;
            for (int k1 = 0; k1 < kernel[1]; ++k1) {
                const int y1 = at(1, x1, k1);
                if (y1 < 0) continue;
                for (int k2 = 0; k2 < kernel[2]; ++k2) {
                    const int y2 = at(2, x2, k2);
                    if (y2 < 0) continue;
                    const double root = roots[((index_t)y0 * gy_size[1] + y1) * gy_size[2] + y2];
                    sum += root * root;
                }
            }
        }
        return sum;
    }
};
"""

_NEUTRAL = {'gy_size': 1, 'gx_size': 1, 'kernel': 1, 'stride': 1, 'pad': 0, 'dilate': 1}
_STRUCT = numpy.dtype([(name, 'i4', MOST_AXES) for name in _NEUTRAL] + [('is_convolved', 'i4')])


def for_cuda(window):
    """Returns a :class:`Window` as the struct of :data:`CUDA_WINDOW`."""
    struct = numpy.zeros((), _STRUCT)
    for name, neutral in _NEUTRAL.items():
        values = getattr(window, name)
        struct[name] = (neutral,) * (MOST_AXES - len(values)) + tuple(values)
    struct['is_convolved'] = window.is_convolved
    return struct
