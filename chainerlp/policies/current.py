"""Current scaling: two policies that look at the product gx itself before they choose its scale."""

import dataclasses
import functools
import math

from chainerlp import formats, geometry, gpu, statistics
from chainerlp.policies.bounds import CUDA_CHOICE
from chainerlp.policies.policy import Bounded, Margin, Threshold
from chainerlp.rounding import to_float32

import numpy
from chainer import backend


@dataclasses.dataclass(frozen=True)
class Amax(Bounded, Margin):
    """The largest scale with max|gx| α <= u_max / 2^margin.

    NVIDIA's Transformer Engine calls this current scaling.

    Args:
        margin (float): Powers of two between the largest gradient and the largest number, for what
            comes before the next layer chooses: batch normalization, sums.
        max_scale (float): No bound by default, nor for ``max_total_scale``.
    """

    max_scale: float = math.inf
    max_total_scale: float = math.inf

    scales_weights = True
    needs_product = True

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        product = _product(gy, W) if product is None else product
        return self._limit() / (statistics.largest_magnitude(product) / backoff)

    def _limit(self):
        return float(formats.get(self.format).largest * 2.0**-self.margin)

    def _kernel(self, gy, W, terms, product, window, backoff):
        product = _product(gy, W) if product is None else product
        if product.dtype == numpy.float64:
            return None
        row = gpu.contiguous(product)
        return functools.partial(
            gpu.launch,
            _CUDA_AMAX,
            'choose_amax',
            gpu.blocks_for(row),
            *(row, row.itemsize, row.size),
            gpu.kept_zeros('amax', 2),
            self._limit(),
        )


@dataclasses.dataclass(frozen=True)
class Measured(Amax, Threshold):
    """The smallest scale at which the measured underflow is T at most.

    That is the smallest power of two, at least 1, at which the share of the nonzero elements of gx
    that round to zero (magnitudes up to u_min / 2) is at most T; but never more than :class:`Amax`
    allows.

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        margin (float): As :class:`Amax`'s.
    """

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        product = _product(gy, W) if product is None else product
        counts = statistics.exponent_counts(product)
        lost = formats.get(self.format).underflow_threshold
        lowest = statistics.smallest_scale_that_keeps(counts, lost, self.threshold)
        largest = super()._unbounded_scale(gy, W, terms, product, window, backoff)
        return xp.minimum(xp.maximum(backoff * lowest, 1.0), largest)

    def _kernel(self, gy, W, terms, product, window, backoff):
        product = _product(gy, W) if product is None else product
        if product.dtype == numpy.float64:
            return None
        row = gpu.contiguous(product.astype(numpy.float32, copy=False))
        lost = formats.get(self.format).underflow_threshold
        return functools.partial(
            gpu.launch,
            _CUDA_MEASURED,
            'choose_measured',
            gpu.blocks_for(row),
            *(row, row.size),
            gpu.kept_zeros('counts', 2 * (statistics.EXPONENTS + 2)),
            *(self._limit(), lost, float(self.threshold)),
        )


def _product(gy, W):
    return geometry.plain_data_gradient(to_float32(gy), to_float32(W))


_CUDA_AMAX = (
    CUDA_CHOICE
    + r"""
struct Magnitude {
    unsigned largest;  // the bits of |x|: in the order of |x|, and NaN comes last
    template <typename T> __device__ void chunk(const T* x, int size) {
        #pragma unroll
        for (int i = 0; i < size; ++i)
            largest = Largest::of(largest, bits_of(value_of(x[i])) & 0x7fffffffu);
    }
};

// state: the largest magnitude so far, and how many blocks are done; both 0 before and after.
extern "C" __global__ void choose_amax(
        const void* x, index_t itemsize, index_t size, unsigned* state, double limit,
        Choice choice) {
    Magnitude own = {0};
    if (itemsize == 2) for_all((const half_bits*)x, size, own);
    else for_all((const float*)x, size, own);
    const unsigned largest = over_block<Largest>(own.largest);
    if (threadIdx.x == 0) atomicMax(&state[0], largest);
    if (!is_last_block(&state[1]) || threadIdx.x > 0) return;
    choice.store(limit / (value_of_bits(((volatile unsigned*)state)[0]) / choice.backoff));
    state[0] = 0;
}
"""
)

_CUDA_MEASURED = (
    statistics.CUDA_EXPONENT_COUNTS
    + CUDA_CHOICE
    + r"""
// counts: 257, then the state of choose_amax; all 0 before and after. lost: a power of two, or 0.
extern "C" __global__ void choose_measured(
        const float* x, index_t size, index_t* counts, double limit, double lost, double rate,
        Choice choice) {
    unsigned* state = (unsigned*)(counts + 257);
    const unsigned largest = over_block<Largest>(count(x, size, counts));
    if (threadIdx.x == 0) atomicMax(&state[0], largest);
    if (!is_last_block(&state[1])) return;

    // Each thread has an exponent, and looks at how many numbers lie at or below it.
    __shared__ index_t of_exponent[THREADS];
    of_exponent[threadIdx.x] = ((volatile index_t*)counts)[threadIdx.x + 1];
    counts[threadIdx.x + 1] = 0;
    __syncthreads();
    index_t at_or_below = 0;
    for (unsigned i = 0; i <= threadIdx.x; ++i) at_or_below += of_exponent[i];
    const index_t total = over_block<Largest>(at_or_below);
    const int first_kept = over_block<Sum>((int)(at_or_below <= rate * total));
    if (threadIdx.x > 0) return;
    const double backoff = choice.backoff;
    const double highest = limit / (value_of_bits(((volatile unsigned*)state)[0]) / backoff);
    counts[0] = state[0] = 0;
    double lowest = NAN;
    if (total > 0) lowest = max(backoff * ldexp(lost, 127 - first_kept), 1.0);
    choice.store(lowest < highest ? lowest : highest);
}
"""
)
