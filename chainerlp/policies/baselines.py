"""The policies that the paper's is compared with.

Those of the paper's code: a constant, ranges of values, log-normal casts.
"""

import dataclasses
import functools
import math
from statistics import NormalDist
from typing import Optional

from chainerlp import formats, gpu, statistics
from chainerlp.policies.bounds import CUDA_CHOICE, LARGEST_TOTAL_SCALE, bounded
from chainerlp.policies.policy import Bounded, Policy, Threshold, is_real
from chainerlp.types import Array, Scale

import numpy
from chainer import backend
from chainer.backends import cuda


@dataclasses.dataclass(frozen=True)
class Fixed(Policy):
    """One constant for every layer it is given to, whatever the gradient.

    ``Fixed(1)`` leaves gradients as they are; together with ``initial_scale`` of
    :class:`~chainerlp.AdaptiveLossScaling` it is static loss scaling.

    Args:
        scale (float): α, a positive, finite number.
    """

    constant: float

    needs_product = False

    def __init__(self, scale: float) -> None:
        if not is_real(scale) or not 0 < scale < math.inf:
            raise ValueError(f'Fixed: scale must be a positive, finite number, not {scale!r}')
        object.__setattr__(self, 'constant', float(scale))

    def __repr__(self) -> str:
        return f'Fixed({self.constant!r})'

    def scale(
        self,
        gy: Array,
        W: Optional[Array],
        total_scale: Scale = 1.0,
        *,
        terms: Optional[int] = None,
        product: Optional[Array] = None,
        backoff: float = 1.0,
    ) -> Scale:
        """Returns the constant, also for CuPy arrays; see :meth:`Policy.scale`.

        Less or more if the total scale would leave float32 otherwise.
        """
        if self.constant == 1:
            return 1.0
        return bounded(self.constant, total_scale, math.inf, LARGEST_TOTAL_SCALE, False)


_SMALLEST_PRODUCT = 1e-15


@dataclasses.dataclass(frozen=True)
class AbsRange(Bounded):
    """Looks at the extremes of gy and W only (``abs_range`` of the paper's code).

    With o_min (at least 1e-15) and o_max the smallest and largest of the four products of the
    smallest and largest nonzero ``|gy|`` and ``|W|``:
    α = min(max((u_min / K) / o_min, 1), (u_max / K) / o_max), then as :class:`Adaptive`.
    """

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        gy_smallest, gy_largest = statistics.nonzero_range(gy)
        W_smallest, W_largest = statistics.nonzero_range(W)
        smallest = xp.maximum(gy_smallest / backoff * W_smallest, _SMALLEST_PRODUCT)
        lowest = xp.maximum(format.smallest_subnormal / terms / smallest, 1.0)
        return xp.minimum(lowest, format.largest / terms / (gy_largest / backoff * W_largest))

    def _kernel(self, gy, W, terms, product, window, backoff):
        smallest = formats.get(self.format).smallest_subnormal / terms
        return _range_kernel(
            self.format, gy[None, None], W[None], terms, smallest, _SMALLEST_PRODUCT
        )


@dataclasses.dataclass(frozen=True)
class ElementWiseRange(Bounded):
    """Saves the smallest of all products gy_ik W_kj, unless the largest forbids it.

    ``α = min(max over p of max(u_min / |p|, 1), min over p of u_max / |p|, over K)``, over the
    nonzero products p, then as :class:`Adaptive`. The paper's code forms every product, far too
    slow to train with. For each k the extremes of the products are the products of the extremes,
    which gives the same α from the extremes of each output channel.
    """

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        smallest, largest = numpy.inf, 0.0
        for channel in range(W.shape[0]):
            gy_smallest, gy_largest = statistics.nonzero_range(gy[:, channel])
            W_smallest, W_largest = statistics.nonzero_range(W[channel])
            smallest = xp.minimum(smallest, gy_smallest / backoff * W_smallest)
            largest = xp.maximum(largest, gy_largest / backoff * W_largest)
        lowest = xp.maximum(format.smallest_subnormal / smallest, 1.0)
        return xp.minimum(lowest, format.largest / terms / largest)

    def _kernel(self, gy, W, terms, product, window, backoff):
        smallest = formats.get(self.format).smallest_subnormal
        return _range_kernel(self.format, gy, W, terms, smallest, 0.0)


@dataclasses.dataclass(frozen=True)
class LogNormal(Bounded, Threshold):
    """For a cast from float32: the scale at which a log-normal g underflows at a rate of T.

    α = exp(ln u_min − μ − σ Φ⁻¹(T)) with μ and σ the mean and the standard deviation of ln|g| over
    the nonzero g, at most u_max / max|g|; then as :class:`Adaptive`. g is what is about to be
    rounded: the product where a layer hands it in, otherwise gy; W is not looked at and may be
    ``None``.
    """

    needs_product = True

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        gradient = gy if product is None else product
        mean, deviation = statistics.log_moments(gradient)
        quantile = NormalDist().inv_cdf(self.threshold)
        exponent = math.log(format.smallest_subnormal) - mean - deviation * quantile
        largest = statistics.largest_magnitude(gradient) / backoff
        return xp.minimum(backoff * xp.exp(exponent), format.largest / largest)

    def _kernel(self, gy, W, terms, product, window, backoff):
        gradient = gy if product is None else product
        if gradient.dtype == numpy.float64:
            return None
        row = gpu.contiguous(gradient)
        blocks = gpu.blocks_for(row)
        return functools.partial(
            gpu.launch,
            _CUDA_LOG_NORMAL,
            'choose_log_normal',
            blocks,
            *(row, row.itemsize, row.size),
            cuda.cupy.empty((blocks, 3), numpy.float64),
            gpu.kept_zeros('amax', 2),
            math.log(formats.get(self.format).smallest_subnormal),
            NormalDist().inv_cdf(self.threshold),
            float(formats.get(self.format).largest),
        )


_CUDA_RANGE = (
    CUDA_CHOICE
    + r"""
struct Extremes {
    unsigned smallest, largest;  // the bits of |x|; of the smallest that is not 0, the complement

    template <typename T> __device__ void see(T x) {
        const unsigned magnitude = bits_of(value_of(x)) & 0x7fffffffu;
        if (magnitude) smallest = Largest::of(smallest, ~magnitude);
        largest = Largest::of(largest, magnitude);
    }
};

// One of the channels of an array of shape (count, channels, size).
template <typename T> __device__ void look(
        const T* x, index_t count, index_t size, Extremes& found) {
    x += blockIdx.x * size;
    const index_t distance = gridDim.x * size, all = gridDim.y * (index_t)THREADS;
    for (index_t i = blockIdx.y * (index_t)THREADS + threadIdx.x; i < count * size; i += all)
        found.see(x[i / size * distance + i % size]);
}

__device__ void merge(const Extremes& found, unsigned* extremes) {
    const unsigned smallest = over_block<Largest>(found.smallest);
    const unsigned largest = over_block<Largest>(found.largest);
    if (threadIdx.x > 0) return;
    atomicMax(&extremes[0], smallest);
    atomicMax(&extremes[1], largest);
}

__device__ double smallest_of(const volatile unsigned* extremes) {
    return extremes[0] ? value_of_bits(~extremes[0]) : INFINITY;
}

// Each column of the grid (there may be 65535 rows only) looks at one channel of gy and of W.
// extremes: four of each, then how many blocks are done; all 0 before and after.
extern "C" __global__ void choose_range(
        const void* gy, index_t gy_itemsize, index_t count, index_t gy_size, const void* W,
        index_t W_itemsize, index_t W_size, unsigned* extremes, double smallest_product,
        double smallest, double largest, Choice choice) {
    Extremes of_gy = {0, 0}, of_W = {0, 0};
    if (gy_itemsize == 2) look((const half_bits*)gy, count, gy_size, of_gy);
    else look((const float*)gy, count, gy_size, of_gy);
    if (W_itemsize == 2) look((const half_bits*)W, 1, W_size, of_W);
    else look((const float*)W, 1, W_size, of_W);
    merge(of_gy, extremes + 4 * blockIdx.x);
    merge(of_W, extremes + 4 * blockIdx.x + 2);
    if (!is_last_block(extremes + 4 * gridDim.x)) return;

    double lowest = INFINITY, highest = 0;
    int is_nan = 0;
    for (unsigned k = threadIdx.x; k < gridDim.x; k += THREADS) {
        const volatile unsigned* of_channel = extremes + 4 * k;
        const double low = smallest_of(of_channel) / choice.backoff * smallest_of(of_channel + 2);
        const double high =
            value_of_bits(of_channel[1]) / choice.backoff * value_of_bits(of_channel[3]);
        lowest = low < lowest ? low : lowest;
        highest = high > highest ? high : highest;
        is_nan |= high != high;
        for (int i = 0; i < 4; ++i) extremes[4 * k + i] = 0;
    }
    lowest = -over_block<Largest>(-lowest);
    is_nan = over_block<Largest>(is_nan);
    highest = over_block<Largest>(highest);
    if (threadIdx.x > 0) return;
    lowest = max(smallest / max(lowest, smallest_product), 1.0);
    highest = largest / highest;
    choice.store(is_nan ? NAN : lowest < highest ? lowest : highest);
}
"""
)


def _range_kernel(format, gy, W, terms, smallest, smallest_product):
    """Returns what :meth:`Bounded._kernel` does, for gy (n, channels, ...) and W (channels, ...).

    α = min(max(smallest / o_min, 1), (u_max / K) / o_max), where o_min (at least the smallest
    product) and o_max are the least and the greatest of the channels' products.
    """
    if numpy.float64 in (gy.dtype, W.dtype):
        return None
    xp, channels = cuda.cupy, len(W)
    gy, W = xp.ascontiguousarray(gy), xp.ascontiguousarray(W)
    of_channel = gy[:, 0]
    blocks = gpu.blocks_for(of_channel if of_channel.nbytes > W[0].nbytes else W[0])
    return functools.partial(
        gpu.launch,
        _CUDA_RANGE,
        'choose_range',
        (channels, blocks),
        *(gy, gy.itemsize, len(gy), of_channel.size // len(gy)),
        *(W, W.itemsize, W.size // channels),
        gpu.kept_zeros('range', 4 * channels + 1),
        *(smallest_product, float(smallest), formats.get(format).largest / terms),
    )


_CUDA_LOG_NORMAL = (
    CUDA_CHOICE
    + r"""
struct Logarithms {
    double pivot, sum, squares, count;  // of ln|x| - pivot: near 0, no digits cancel
    unsigned largest;
    template <typename T> __device__ void chunk(const T* x, int size) {
        #pragma unroll
        for (int i = 0; i < size; ++i) {
            const unsigned magnitude = bits_of(value_of(x[i])) & 0x7fffffffu;
            largest = Largest::of(largest, magnitude);
            if (!magnitude) continue;
            const double logarithm = log(value_of_bits(magnitude)) - pivot;
            sum += logarithm;
            squares += logarithm * logarithm;
            count += 1;
        }
    }
};

// partial: three numbers for each block; state: as choose_amax's.
extern "C" __global__ void choose_log_normal(
        const void* x, index_t itemsize, index_t size, double* partial, unsigned* state,
        double log_smallest, double quantile, double most, Choice choice) {
    const float first = itemsize == 2 ? value_of(*(const half_bits*)x) : *(const float*)x;
    const double pivot = first ? log(value_of_bits(bits_of(first) & 0x7fffffffu)) : log_smallest;
    Logarithms own = {pivot, 0, 0, 0, 0};
    if (itemsize == 2) for_all((const half_bits*)x, size, own);
    else for_all((const float*)x, size, own);
    const double of_block[] = {
        over_block<Sum>(own.sum), over_block<Sum>(own.squares), over_block<Sum>(own.count)};
    const unsigned largest = over_block<Largest>(own.largest);
    if (threadIdx.x == 0) {
        for (int k = 0; k < 3; ++k) partial[3 * blockIdx.x + k] = of_block[k];
        atomicMax(&state[0], largest);
    }
    if (!is_last_block(&state[1])) return;

    double total[3] = {0, 0, 0};
    for (unsigned block = threadIdx.x; block < gridDim.x; block += THREADS)
        for (int k = 0; k < 3; ++k) total[k] += ((const volatile double*)partial)[3 * block + k];
    for (int k = 0; k < 3; ++k) total[k] = over_block<Sum>(total[k]);
    if (threadIdx.x > 0) return;
    const double mean = total[0] / total[2];
    const double variance = total[1] / total[2] - mean * mean;
    const double deviation = variance < 0 ? 0 : sqrt(variance);
    const double backoff = choice.backoff;
    const double chosen = backoff * exp(log_smallest - pivot - mean - deviation * quantile);
    const double highest = most / (value_of_bits(((volatile unsigned*)state)[0]) / backoff);
    state[0] = 0;
    choice.store(chosen < highest ? chosen : highest);
}
"""
)
