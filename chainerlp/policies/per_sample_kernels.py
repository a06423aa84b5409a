"""The launches that choose the scale of :class:`~chainerlp.policies.PerSample` on a GPU.

Beside the NumPy code of :mod:`chainerlp.policies.per_sample`, which defines what they compute.
"""

import functools
import math

from chainerlp import gpu, moments
from chainerlp.policies.bounds import CUDA_CHOICE
from chainerlp.statistics import BINS_AN_OCTAVE
from chainerlp.window import CUDA_WINDOW, for_cuda

import numpy
from chainer.backends import cuda

# So much of a sample is measured by one block at least, unless there are few samples.
_ELEMENTS_A_BLOCK = 16 * gpu.THREADS
# The last of a sample's blocks adds up windows of so many positions at most; more take a launch of
# their own, each of whose blocks adds up so many at once.
_SUMMED_BY_LAST = 1 << 17
_SUMMED_AT_ONCE = 1 << 15
# So many neighbours, at least, are read at once.
_SMALLEST_TILE = 8


def of_samples(gy, W, *constants):
    """Returns what launches a kernel with a ``Choice`` of α, for the samples of gy.

    See :func:`chainerlp.policies.bounds.choose_on_gpu`.

    Args:
        gy (:ref:`ndarray`): As of :meth:`chainerlp.policies.Policy.scale`.
        W (:ref:`ndarray`): As there.
        *constants (float): K, T, u_min / 2 and u_max.
    """
    rows = cuda.cupy.ascontiguousarray(gy).reshape(len(gy), -1)
    samples, size = rows.shape
    parts = max(1, min(gpu.MOST_BLOCKS // samples, -(-size // _ELEMENTS_A_BLOCK)))
    blocks = min(samples, gpu.MOST_BLOCKS) * parts
    return functools.partial(
        moments.launch_with_moments,
        _CUDA_SAMPLES,
        'choose_per_sample',
        [W],
        *(rows, rows.itemsize, samples, size, parts),
        cuda.cupy.empty((samples, parts), numpy.float64),
        cuda.cupy.empty(samples, numpy.float64),
        cuda.cupy.empty(blocks, numpy.uint32),
        *constants,
        more_blocks=blocks,
    )


def of_positions(gy, W, window, *constants):
    """Returns what launches a kernel with a ``Choice`` of α, for the positions of gx.

    Of large images it has launched one already.

    Args:
        gy (:ref:`ndarray`): As of :func:`of_samples`.
        W (:ref:`ndarray`): As there.
        window (~chainerlp.window.Window): Which positions of gy belong to one of gx.
        *constants (float): As there.
    """
    cupy = cuda.cupy
    gy = cupy.ascontiguousarray(gy)
    rows, channels = len(gy) * window.groups, gy.shape[1] // window.groups
    positions, gx_positions = math.prod(window.gy_size), math.prod(window.gx_size)
    tile = _tile(rows, channels, positions)
    blocks = min(rows * -(-positions // tile), gpu.MOST_BLOCKS)
    roots = cupy.empty((rows, positions), numpy.float32)
    largest = cupy.empty(blocks, numpy.uint32)
    gradient = gy, gy.itemsize, rows, channels, positions, tile, roots, largest
    counts = gpu.kept_zeros('counts', _BINS + rows)
    more_blocks, at_once = blocks, 0
    in_window = math.prod(window.kernel)
    if gx_positions * in_window > _SUMMED_BY_LAST:
        gpu.launch(_CUDA_POSITIONS, 'measure_large_images', blocks, *gradient)
        at_once = max(gpu.THREADS, _SUMMED_AT_ONCE // in_window)
        more_blocks = min(rows * -(-gx_positions // at_once), gpu.MOST_BLOCKS)
    return functools.partial(
        moments.launch_with_moments,
        _CUDA_POSITIONS,
        'choose_of_positions',
        [W],
        *(*gradient, blocks, for_cuda(window), gx_positions, counts, at_once),
        *constants,
        more_blocks=more_blocks,
    )


def _tile(rows, channels, positions):
    """Returns how many positions a block looks at; the threads of one share its channels."""
    tile = gpu.THREADS
    while tile // 2 >= positions:
        tile //= 2
    while tile > _SMALLEST_TILE and gpu.THREADS // tile < channels:
        if rows * -(-positions // tile) >= gpu.MOST_BLOCKS:
            break
        tile //= 2
    return tile


_CUDA_SEARCH = (
    moments.CUDA_MOMENTS
    + CUDA_CHOICE
    + r"""
// What follows is done by all threads of a block. A mixture has `size` kinds of Gaussians, `total`
// in all; at_one(i) is u_min / 2 over sqrt(2) sigma_i.

template <typename Mixture> __device__ double lost_at(const Mixture& mixture, int exponent) {
    double sum = 0;
    for (index_t i = threadIdx.x; i < mixture.size; i += THREADS)
        if (mixture.count(i)) sum += mixture.count(i) * erf(ldexp(mixture.at_one(i), -exponent));
    return over_block<Sum>(sum) / mixture.total;
}

template <typename Mixture>
__device__ double smallest_scale(const Mixture& mixture, double rate) {
    double bound = 0;
    for (index_t i = threadIdx.x; i < mixture.size; i += THREADS)
        if (mixture.count(i)) bound += mixture.count(i) * mixture.at_one(i);
    bound = over_block<Sum>(bound) * 1.1283791670955126 / mixture.total / rate;
    int enough = bound > 1 ? (int)ceil(log2(bound)) : 0, too_little = -1;
    for (int exponent = enough - 1, step = 1; exponent >= 0; exponent -= step, step *= 2) {
        if (lost_at(mixture, exponent) > rate) {
            too_little = exponent;
            break;
        }
        enough = exponent;
    }
    while (enough - too_little > 1) {
        const int middle = (enough + too_little) / 2;
        if (lost_at(mixture, middle) <= rate) enough = middle;
        else too_little = middle;
    }
    return ldexp(1.0, enough);
}

__device__ unsigned largest_of(const unsigned* largest, index_t blocks) {
    unsigned maximum = 0;
    for (index_t i = threadIdx.x; i < blocks; i += THREADS)
        maximum = Largest::of(maximum, ((const volatile unsigned*)largest)[i]);
    return over_block<Largest>(maximum);
}

template <typename Mixture>
__device__ void choose(
        const Mixture& mixture, unsigned largest_gy, const double* of_W, double terms, double rate,
        double u_max, const Choice& choice) {
    const double highest_gy = value_of_bits(largest_gy) / choice.backoff;
    double found = NAN;
    if (highest_gy <= 1.7976931348623157e308 && of_W[0] <= 1.7976931348623157e308)
        found = min(smallest_scale(mixture, rate), u_max / (terms * (highest_gy * of_W[1])));
    if (threadIdx.x == 0) choice.store(found);
}
"""
)

_CUDA_SAMPLES = (
    _CUDA_SEARCH
    + r"""
// gy has `samples` rows of `size` elements. Block k measures part k % parts of row k / parts and of
// every (blocks / parts)th one from there on. squares has a number for each row and part, largest
// one for each block.
__device__ void measure_samples(
        const void* gy, index_t itemsize, index_t samples, index_t size, index_t parts,
        index_t k, index_t blocks, double* squares, unsigned* largest) {
    const index_t part = k % parts;
    const index_t begin = size * part / parts, end = size * (part + 1) / parts;
    unsigned maximum = 0;
    for (index_t i = k / parts; i < samples; i += blocks / parts) {
        double sum = 0;
        for (index_t j = begin + threadIdx.x; j < end; j += THREADS) {
            const float value = itemsize == 2 ? value_of(((const half_bits*)gy)[i * size + j])
                                              : value_of(((const float*)gy)[i * size + j]);
            sum += (double)value * value;
            maximum = Largest::of(maximum, bits_of(value) & 0x7fffffffu);
        }
        sum = over_block<Sum>(sum);
        if (threadIdx.x == 0) squares[i * parts + part] = sum;
    }
    maximum = over_block<Largest>(maximum);
    if (threadIdx.x == 0) largest[k] = maximum;
}

struct Samples {
    const double* each;  // 0 of a sample of zeros, of which nothing is lost
    index_t size, total;
    __device__ index_t count(index_t) const { return 1; }
    __device__ double at_one(index_t i) const { return each[i]; }
};

extern "C" __global__ void choose_per_sample(
        double* partial, unsigned* done, Measured W, const void* gy, index_t itemsize,
        index_t samples, index_t size, index_t parts, double* squares, double* at_one,
        unsigned* largest, double terms, double rate, double lost, double u_max, Choice choice) {
    const index_t blocks = gridDim.x - W.blocks, k = blockIdx.x - W.blocks;
    if (k < 0) W.measure(partial);
    else measure_samples(gy, itemsize, samples, size, parts, k, blocks, squares, largest);
    if (!is_last_block(done)) return;

    double of_W[2];
    W.moments(partial, of_W);
    const double spread = sqrt(of_W[0] * terms) / choice.backoff;
    for (index_t i = threadIdx.x; i < samples; i += THREADS) {
        double sum = 0;
        for (index_t k = 0; k < parts; ++k) sum += ((volatile double*)squares)[i * parts + k];
        const double deviation = spread * sqrt(sum / size);
        at_one[i] = deviation > 0 ? lost / (1.4142135623730951 * deviation) : 0;
    }
    const Samples mixture = {at_one, samples, samples};
    choose(mixture, largest_of(largest, blocks), of_W, terms, rate, u_max, choice);
}
"""
)

# From below the square of float32's smallest number to above a sum of squares of its largest ones.
_LOWEST_EXPONENT = -300
_BINS = 4608
_CUDA_POSITIONS = (
    _CUDA_SEARCH
    + CUDA_WINDOW
    + f'#define BINS {_BINS}\n'
    + f'#define BIN_BITS {52 - int(math.log2(BINS_AN_OCTAVE))}\n'
    + f'#define LOWEST_BIN {(1023 + _LOWEST_EXPONENT) * BINS_AN_OCTAVE}\n'
    + r"""
// gy has `rows` rows, one for each sample and group, of `channels` channels of `positions`.
struct Gradient {
    const void* gy;
    index_t itemsize, rows, channels, positions, tile;
    float* roots;  // of the sums of squares over the channels
    __device__ index_t tiles() const { return (positions + tile - 1) / tile; }

    // Adds up the squares of a tile of positions; returns the largest magnitude a thread has seen.
    __device__ unsigned measure(index_t row, index_t of_row) const {
        return itemsize == 2 ? measure<half_bits, float>(row, of_row)
                             : measure<float, double>(row, of_row);
    }

    // tile threads side by side have a position each, and THREADS / tile of them share it.
    template <typename T, typename S>
    __device__ unsigned measure(index_t row, index_t of_row) const {
        __shared__ S sums[THREADS];
        const index_t worker = threadIdx.x / tile, workers = THREADS / tile;
        const index_t position = of_row * tile + threadIdx.x % tile;
        unsigned largest = 0;
        S sum = 0;
        if (position < positions) {
            const T* of_position = (const T*)gy + row * channels * positions + position;
            #pragma unroll 4
            for (index_t c = worker; c < channels; c += workers) {
                const float value = value_of(of_position[c * positions]);
                sum += (S)value * value;
                largest = Largest::of(largest, bits_of(value) & 0x7fffffffu);
            }
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        for (index_t half = workers / 2; half > 0; half /= 2) {
            if (worker < half) sums[threadIdx.x] += sums[threadIdx.x + half * tile];
            __syncthreads();
        }
        if (worker == 0 && position < positions)
            roots[row * positions + position] = sqrt((double)sums[threadIdx.x]);
        __syncthreads();
        return largest;
    }
};

// Counts some of gx's positions by their sums of squares. Zeros are left out.
__device__ void count_positions(
        const Window& window, const float* roots, index_t begin, index_t end, unsigned* counts) {
    __shared__ unsigned of_block[BINS];
    for (int i = threadIdx.x; i < BINS; i += THREADS) of_block[i] = 0;
    __syncthreads();
    for (index_t i = begin + threadIdx.x; i < end; i += THREADS) {
        const double sum = window.sum_of_squares(roots, (int)i);
        if (!(sum > 0)) continue;
        const int bin = (int)(__double_as_longlong(sum) >> BIN_BITS) - LOWEST_BIN;
        atomicAdd(&of_block[min(max(bin, 0), BINS - 1)], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        if (of_block[i]) atomicAdd(&counts[i], of_block[i]);
    __syncthreads();
}

struct Positions {
    const volatile unsigned* counts;
    index_t size, total;
    double variance, lost;  // what a sum of squares is multiplied by; what rounds to zero
    __device__ index_t count(index_t i) const { return counts[i]; }
    __device__ double at_one(index_t i) const {
        const long long bits = ((long long)(i + LOWEST_BIN) << BIN_BITS) + (1LL << (BIN_BITS - 1));
        const double deviation = sqrt(__longlong_as_double(bits) * variance);
        return deviation > 0 ? lost / (1.4142135623730951 * deviation) : 0;
    }
};

// By blocks `begin` and following of the grid.
__device__ void measure_positions(
        const Gradient& gradient, unsigned* largest, index_t begin, const Window& window,
        index_t gx_positions, unsigned* counts) {
    unsigned maximum = 0;
    const index_t tiles = gradient.tiles(), items = gradient.rows * tiles;
    for (index_t item = blockIdx.x - begin; item < items; item += gridDim.x - begin) {
        const index_t row = item / tiles;
        maximum = Largest::of(maximum, gradient.measure(row, item % tiles));
        if (counts && is_last(&counts[BINS + row], tiles))
            count_positions(
                window, gradient.roots + row * gradient.positions, 0, gx_positions, counts);
    }
    maximum = over_block<Largest>(maximum);
    if (threadIdx.x == 0) largest[blockIdx.x - begin] = maximum;
}

extern "C" __global__ void measure_large_images(
        const void* gy, index_t itemsize, index_t rows, index_t channels, index_t positions,
        index_t tile, float* roots, unsigned* largest) {
    const Gradient gradient = {gy, itemsize, rows, channels, positions, tile, roots};
    measure_positions(gradient, largest, 0, Window(), 0, nullptr);
}

// largest: one for each of `blocks` that measure. counts: BINS of them, and one more for each row;
// all 0 before and after. at_once: how many of gx's positions a block takes where gy is measured
// already; or else 0.
extern "C" __global__ void choose_of_positions(
        double* partial, unsigned* done, Measured W, const void* gy, index_t itemsize,
        index_t rows, index_t channels, index_t positions, index_t tile, float* roots,
        unsigned* largest, index_t blocks, Window window, index_t gx_positions, unsigned* counts,
        index_t at_once, double terms, double rate, double lost, double u_max, Choice choice) {
    const Gradient gradient = {gy, itemsize, rows, channels, positions, tile, roots};
    const index_t k = blockIdx.x - W.blocks;
    if (k < 0) W.measure(partial);
    else if (!at_once) measure_positions(gradient, largest, W.blocks, window, gx_positions, counts);
    else {
        const index_t parts = (gx_positions + at_once - 1) / at_once;
        for (index_t item = k; item < rows * parts; item += gridDim.x - W.blocks) {
            const index_t begin = item % parts * at_once, end = min(begin + at_once, gx_positions);
            count_positions(window, roots + item / parts * positions, begin, end, counts);
        }
    }
    if (!is_last_block(done)) return;

    double of_W[2];
    W.moments(partial, of_W);
    const index_t slots = channels * window.kernel[0] * window.kernel[1] * window.kernel[2];
    const double variance = of_W[0] * terms / slots / (choice.backoff * choice.backoff);
    const Positions mixture = {counts, BINS, rows * gx_positions, variance, lost};
    choose(mixture, largest_of(largest, blocks), of_W, terms, rate, u_max, choice);
    for (int i = threadIdx.x; i < BINS; i += THREADS) counts[i] = 0;
}
"""
)
