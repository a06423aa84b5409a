"""What rounding to a format loses."""

from chainerlp.kernels import cuda

import numpy
from chainer import backend


def count_losses(product, format):
    """Counts what rounding a product to a format loses.

    Args:
        product (:ref:`ndarray`): A float32 array of any shape.
        format (~chainerlp.formats.Format): The format, rounded to as IEEE 754's nearest even.

    Returns:
        tuple: How many nonzero elements become zero, and how many finite ones become inf (or what
        the format has instead).
    """
    if backend.get_array_module(product) is not numpy:
        return losses_on_device(product, format)
    magnitude = numpy.abs(product)
    lost = (magnitude <= format.underflow_threshold) & (magnitude > 0)
    with numpy.errstate(over='ignore'):  # float32's own threshold is beyond float32
        overflowed = format.overflows(magnitude) & (magnitude < numpy.inf)
    return numpy.count_nonzero(lost), numpy.count_nonzero(overflowed)


_LOSSES = r"""
// Magnitudes by their bits, which are in the same order: CuPy compiles with subnormals flushed.
struct Limits { unsigned underflow, overflow, overflow_itself; };

struct Losses {
    Limits limits;
    index_t lost, overflowed;

    __device__ void chunk(const float* x, int size) {
        #pragma unroll
        for (int i = 0; i < size; ++i) {
            const unsigned magnitude = bits_of(x[i]) & 0x7fffffffu;
            lost += magnitude > 0 && magnitude <= limits.underflow;
            const bool is_over = magnitude > limits.overflow
                || (limits.overflow_itself && magnitude == limits.overflow);
            overflowed += is_over && magnitude < 0x7f800000u;
        }
    }
};

extern "C" __global__ void count_losses(
        const float* x, index_t size, Limits limits, index_t* partial) {
    Losses own = {limits, 0, 0};
    for_all(x, size, own);
    const index_t lost = over_block<Sum>(own.lost);
    const index_t overflowed = over_block<Sum>(own.overflowed);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = lost;
        partial[2 * blockIdx.x + 1] = overflowed;
    }
}

// Run by one block.
extern "C" __global__ void add_up(const index_t* partial, index_t blocks, index_t* counts) {
    index_t own[2] = {0, 0};
    for (index_t i = threadIdx.x; i < 2 * blocks; i += THREADS) own[i % 2] += partial[i];
    for (int k = 0; k < 2; ++k) {
        const index_t count = over_block<Sum>(own[k]);
        if (threadIdx.x == 0) counts[k] = count;
    }
}
"""
_LIMITS = numpy.dtype(
    [(name, numpy.uint32) for name in ('underflow', 'overflow', 'overflow_itself')]
)


def losses_on_device(product, format):
    """:func:`count_losses` by a kernel: one pass over the product; returns two 0-d arrays."""
    xp = backend.get_array_module(product)
    row = cuda.contiguous(product)
    blocks = cuda.blocks_for(row)
    partial = xp.empty((blocks, 2), numpy.int64)
    counts = xp.empty(2, numpy.int64)
    with numpy.errstate(over='ignore'):  # float32's own threshold is beyond float32
        thresholds = numpy.array(
            [format.underflow_threshold, format.overflow_threshold], numpy.float32
        )
    limits = numpy.array((*thresholds.view(numpy.uint32).tolist(), format.has_inf), _LIMITS)
    cuda.launch(_LOSSES, 'count_losses', blocks, row, row.size, limits, partial)
    cuda.launch(_LOSSES, 'add_up', 1, partial, blocks, counts)
    return counts[0], counts[1]
