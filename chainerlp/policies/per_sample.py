"""The paper's criterion, given the sample: for batches whose samples differ in size."""

import dataclasses
import functools
import math

from chainerlp import formats, gpu, moments, statistics
from chainerlp.policies.bounds import CUDA_CHOICE
from chainerlp.policies.policy import Bounded, Threshold, terms_of

import numpy
from chainer.backends import cuda


@dataclasses.dataclass(frozen=True)
class PerSample(Bounded, Threshold):
    """The smallest power of two at which Gaussian samples underflow at a mean rate of T at most.

    Late in training most samples are learnt, and the gradients of a batch differ in size by orders
    of magnitude: gx is no Gaussian, but a mixture of one for each sample, and the small ones
    underflow. With the assumptions of :class:`Adaptive` for each sample i of gy by itself,

        σ_i²    = (mean of gy² over sample i) E[W²] K
        rate(α) = mean over i of P(|N(0, σ_i)| <= u_min / (2 α)),

    where u_min / 2 is what rounds to zero; and α is the smallest power of two, at least 1, with
    rate(α) <= T, but at most (u_max / K) / (max|gy| max|W|). All positions of a sample count
    together. No policy of the paper's: design, section 1.

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        max_scale (float): No bound by default, nor for ``max_total_scale``.
    """

    max_scale: float = math.inf
    max_total_scale: float = math.inf

    scales_weights = True

    def predicted_underflow(self, gy, W, scale=1.0, *, terms=None):
        """Returns the rate of underflow that the policy expects, which it compares with T.

        See :meth:`Adaptive.predicted_underflow`; here it is the mean over the samples.
        """
        deviations = _deviations(gy, W, terms_of(W, terms))
        lost = formats.get(self.format).underflow_threshold
        present = deviations[deviations > 0]
        return float(_erf(lost / (scale * math.sqrt(2) * present)).sum() / len(deviations))

    def _unbounded_scale(self, gy, W, terms, product, backoff):
        format = formats.get(self.format)
        deviations = _deviations(gy, W, terms) / backoff
        lowest = _smallest_scale(deviations, format.underflow_threshold, self.threshold)
        largest = statistics.largest_magnitude(gy) / backoff * statistics.largest_magnitude(W)
        return numpy.minimum(lowest, format.largest / (terms * largest))

    def _kernel(self, gy, W, terms, product, backoff):
        cupy = cuda.cupy
        format = formats.get(self.format)
        rows = cupy.ascontiguousarray(gy).reshape(len(gy), -1)
        samples, size = rows.shape
        parts = max(1, min(gpu.MOST_BLOCKS // samples, -(-size // _ELEMENTS_A_BLOCK)))
        blocks = min(samples, gpu.MOST_BLOCKS) * parts
        constants = terms, self.threshold, format.underflow_threshold, format.largest
        return functools.partial(
            moments.launch_with_moments,
            _CUDA_PER_SAMPLE,
            'choose_per_sample',
            [W],
            *(rows, rows.itemsize, samples, size, parts),
            cupy.empty((samples, parts), numpy.float64),
            cupy.empty(samples, numpy.float64),
            cupy.empty(blocks, numpy.uint32),
            *map(float, constants),
            more_blocks=blocks,
        )


def _deviations(gy, W, terms):
    """Returns σ_i of each sample."""
    of_samples = statistics.second_moments_by_sample(gy)
    return numpy.sqrt(of_samples * (statistics.second_moment(W) * terms))


def _smallest_scale(deviations, threshold, rate):
    """Returns the smallest power of two from 1 at which the mean rate of loss is at most a rate."""
    if not numpy.isfinite(deviations).all():
        return numpy.nan
    present = deviations[deviations > 0]  # of zeros, nothing is lost
    at_one = threshold / (math.sqrt(2) * present)

    def lost(exponent):
        return _erf(at_one * 2.0**-exponent).sum() / len(deviations)

    # erf(x) <= 2 x / sqrt(pi), nearly equal where little is lost: the answer is not beyond, and
    # mostly next to where it is equal.
    bound = 2 / math.sqrt(math.pi) * at_one.sum() / len(deviations) / rate
    enough = max(math.ceil(math.log2(bound)), 0) if bound > 0 else 0
    too_little, step = enough - 1, 1
    while too_little >= 0 and lost(too_little) <= rate:
        enough, too_little, step = too_little, too_little - step, 2 * step
    too_little = max(too_little, -1)
    while enough - too_little > 1:
        middle = (enough + too_little) // 2
        if lost(middle) <= rate:
            enough = middle
        else:
            too_little = middle
    return 2.0**enough


def _erf(x):
    """Returns the error function of x >= 0, to 2e-7 of itself.

    Abramowitz and Stegun, equations 7.1.5 (below 1) and 7.1.26.
    """
    small = numpy.minimum(x, 1)
    square = small * small
    series = numpy.ones_like(small)
    for n in range(10, 0, -1):
        series = 1 - square * series * (2 * n - 1) / (n * (2 * n + 1))
    t = 1 / (1 + 0.3275911 * x)
    tail = 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + coefficient
    with numpy.errstate(under='ignore'):
        large = 1 - tail * t * numpy.exp(-x * x)
    return numpy.where(x < 1, 2 / math.sqrt(math.pi) * small * series, large)


# So much of a sample is measured by one block at least, unless there are few samples.
_ELEMENTS_A_BLOCK = 16 * gpu.THREADS
_CUDA_PER_SAMPLE = (
    moments.CUDA_MOMENTS
    + CUDA_CHOICE
    + r"""
// The rate of loss at 2^exponent, by all threads of a block. at_one: u_min / 2 over
// sqrt(2) sigma_i; 0 of a sample of zeros, of which nothing is lost.
__device__ double lost_at(const double* at_one, index_t samples, int exponent) {
    double sum = 0;
    for (index_t i = threadIdx.x; i < samples; i += THREADS)
        sum += erf(ldexp(at_one[i], -exponent));
    return over_block<Sum>(sum) / samples;
}

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
    unsigned maximum = 0;
    for (index_t i = threadIdx.x; i < blocks; i += THREADS)
        maximum = Largest::of(maximum, ((volatile unsigned*)largest)[i]);
    const double highest_gy = value_of_bits(over_block<Largest>(maximum)) / choice.backoff;
    const double spread = sqrt(of_W[0] * terms) / choice.backoff;
    double bound_sum = 0;
    for (index_t i = threadIdx.x; i < samples; i += THREADS) {
        double sum = 0;
        for (index_t k = 0; k < parts; ++k) sum += ((volatile double*)squares)[i * parts + k];
        const double deviation = spread * sqrt(sum / size);
        at_one[i] = deviation > 0 ? lost / (1.4142135623730951 * deviation) : 0;
        bound_sum += at_one[i];
    }
    bound_sum = over_block<Sum>(bound_sum) * 1.1283791670955126 / samples / rate;
    double found = NAN;
    if (highest_gy <= 1.7976931348623157e308 && spread <= 1.7976931348623157e308) {
        int enough = bound_sum > 1 ? (int)ceil(log2(bound_sum)) : 0, too_little = -1;
        for (int exponent = enough - 1, step = 1; exponent >= 0; exponent -= step, step *= 2) {
            if (lost_at(at_one, samples, exponent) > rate) {
                too_little = exponent;
                break;
            }
            enough = exponent;
        }
        while (enough - too_little > 1) {
            const int middle = (enough + too_little) / 2;
            if (lost_at(at_one, samples, middle) <= rate) enough = middle;
            else too_little = middle;
        }
        found = min(ldexp(1.0, enough), u_max / (terms * (highest_gy * of_W[1])));
    }
    if (threadIdx.x == 0) choice.store(found);
}
"""
)
