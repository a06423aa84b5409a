"""Master weights: float32 copies of float16 parameters, in which updates are made.

An update is made in float32 throughout: while it runs, float16 parameters hold their masters
(:func:`substituted`), so that update rules and hooks, Chainer's and a user's own, see nothing else.
Masters are kept where Chainer's ``use_fp32_update`` keeps its own, in the update
rules, which leave them out of snapshots; :func:`serialize` does not.
"""

import contextlib

from chainerlp import formats, gpu
from chainerlp.gpu import on_gpu
from chainerlp.rounding import from_float32
from chainerlp.statistics import largest_magnitude

import chainer
import numpy
from chainer.backends import cuda

_HALF = formats.FLOAT16


@contextlib.contextmanager
def substituted(params):
    """Context manager in which float16 parameters hold their master weights.

    Afterwards they hold their masters, rounded; magnitudes beyond float16 become 65504.

    Those that are not trained stay as they are.

    Yields:
        list of bool or 0-d bool array: To be read afterwards: whether masters left float16's range,
        so that their parameters hold the largest number; one flag a device.
    """
    params = list(params)
    refresh(params)
    halves, saturated = [], []
    try:
        for param in params:
            if param.array is None or not is_trained(param):
                continue
            if param.dtype == numpy.float16:
                with chainer.using_device(param.device):
                    halves.append((param, param.array))
                    param.array = master_of(param).array
        yield saturated
    finally:
        for param, half in halves:
            master = master_of(param)
            master.array = param.array.astype(numpy.float32, copy=False)  # a hook may replace it
            param.array = half
        saturated += _on_each_device(store_rounded, [param for param, _ in halves], _new_checksums)


def is_trained(param):
    """Returns whether updates change a parameter."""
    return param.update_rule is not None and param.update_rule.enabled


def master_of(param):
    """Returns the master weights of a float16 parameter; makes them if there are none."""
    rule = param.update_rule
    if rule._fp32_param is None or rule._fp32_param.array is None:
        rule._fp32_param = chainer.Parameter(param.array.astype(numpy.float32), name=param.name)
    if rule._fp32_param.device != param.device:  # the model was moved
        rule._fp32_param.to_device(param.device)
    return rule._fp32_param


def widen_states(params):
    """Brings the state of optimizers (momentum, second moments) from float16 to float32.

    An update of float16 weights without masters has made it so, and nothing else would widen it.
    """
    for param in params:
        state = None if param.update_rule is None else param.update_rule.state
        for key, value in (state or {}).items():
            if getattr(value, 'dtype', None) == numpy.float16:
                state[key] = value.astype(numpy.float32)


def refresh(params):
    """Makes master weights take over what was written to their parameters since the last update.

    Parameters may have been clipped, loaded or averaged. Those that share an array
    (``copy(mode='share')``) share a master.
    """
    first_of_array, changed = {}, []
    for param in params:
        rule = param.update_rule
        if rule is None or param.array is None or param.dtype != numpy.float16:
            continue
        first = first_of_array.setdefault(id(param.array), param)
        if first is not param:
            rule._fp32_param = master_of(first)
        elif rule._fp32_param is not None and rule._fp32_param.array is not None:
            changed.append(param)
    _on_each_device(take_over_changes, changed, _checksums_of)


def _on_each_device(function, params, checksums_of):
    """Calls a function with what the parameters of each device have; returns its results."""
    results = []
    for device in {param.device for param in params}:
        with chainer.using_device(device):
            there = [param for param in params if param.device == device]
            masters = [master_of(param).array for param in there]
            checksums = [*map(checksums_of, there)] if on_gpu(masters[0]) else ()
            results.append(function(masters, [param.array for param in there], checksums))
    return results


def _checksums_of(param):
    """Returns those of a parameter's half when it was rounded last, on its device; or ``None``."""
    master = master_of(param)
    checksums, stored_at = getattr(master, 'checksums', (None, None))
    # An update of another way than this one's may have changed the master.
    is_known = checksums is not None and stored_at == param.update_rule.t
    return checksums if is_known and checksums.device == param.array.device else None


def _new_checksums(param):
    checksums, _ = getattr(master_of(param), 'checksums', (None, None))
    if checksums is None or checksums.device != param.array.device:
        checksums = cuda.cupy.empty(-(-param.size // _CHUNK), numpy.uint64)
    master_of(param).checksums = checksums, param.update_rule.t
    return checksums


def take_over_changes(masters, halves, checksums=()):
    """Changes masters where their halves are not what they are rounded to; elsewhere they stay.

    Args:
        masters (list of :ref:`ndarray`): Float32 arrays, which are changed in place.
        halves (list of :ref:`ndarray`): As many float16 arrays of the same shapes.
        checksums (list of :ref:`ndarray`): On a GPU, what :func:`store_rounded` wrote, or ``None``,
            for each: where they are those of the half, the master is not looked at.
    """
    if on_gpu(masters[0]):
        _launch_for_pairs('take_over_changes', masters, halves, checksums)
        return
    for master, half in zip(masters, halves):
        bits = _rounded(master)[0].view(numpy.uint16)
        is_changed = bits != half.view(numpy.uint16)
        if is_changed.any():
            master[is_changed] = half[is_changed]


def store_rounded(masters, halves, checksums=()):
    """Rounds masters to their halves; finite magnitudes beyond float16 become 65504.

    Args:
        masters (list of :ref:`ndarray`): Float32 arrays.
        halves (list of :ref:`ndarray`): As many float16 arrays of the same shapes, which are
            written to.
        checksums (list of :ref:`ndarray`): On a GPU, a uint64 array for each, which gets a checksum
            of every 4096 elements of the half.

    Returns:
        bool or 0-d bool array: Whether a magnitude was beyond float16.
    """
    if on_gpu(masters[0]):
        is_saturated = cuda.cupy.zeros((), numpy.bool_)
        _launch_for_pairs('store_rounded', masters, halves, checksums, is_saturated)
        return is_saturated
    is_saturated = False
    for master, half in zip(masters, halves):
        half[...], is_over = _rounded(master)
        is_saturated |= is_over
    return is_saturated


def _rounded(master):
    """Returns a master in float16, and whether it left its range."""
    if not largest_magnitude(master) >= _HALF.overflow_threshold:  # NaN, too
        return from_float32(master, numpy.float16), False
    clipped = numpy.clip(master, -_HALF.largest, _HALF.largest)
    is_over = (numpy.isfinite(master) & (clipped != master)).any()
    return from_float32(numpy.where(numpy.isinf(master), master, clipped), numpy.float16), is_over


_CHUNK = 4096
_MASTERS = (
    f'#define CHUNK {_CHUNK}'
    + r"""

struct Pairs {
    float* master[90];
    half_bits* half[90];
    unsigned long long* checksums[90];  // one for each chunk, or a null pointer
    index_t size[90];
    int begin[90];
};

__device__ half_bits rounded(float master, bool* is_saturated) {
    const unsigned magnitude = bits_of(master) & 0x7fffffffu;
    if (magnitude >= 0x477ff000u && magnitude < 0x7f800000u) {  // from 65520 on, and no inf
        if (is_saturated) *is_saturated = true;
        master = master > 0 ? 65504.0f : -65504.0f;
    }
    half_bits half;
    store(master, &half);
    return half;
}

// Calls visit(i), which returns a half, for each element of a chunk, by all threads of a block, and
// returns the sum of splitmix64's hashes (Steele et al., 2014) of four halves and their place each.
// If one half changes, so does the sum; if several do, it stays by a chance of 2^-64.
template <typename Visit>
__device__ unsigned long long checksum_of(index_t chunk, index_t size, Visit visit) {
    unsigned long long sum = 0;
    const index_t end = min(size, (chunk + 1) * CHUNK);
    for (index_t i = chunk * CHUNK + 4 * threadIdx.x; i < end; i += 4 * THREADS) {
        unsigned long long word = 0;
        for (int j = 0; j < 4 && i + j < end; ++j)
            word |= (unsigned long long)visit(i + j) << 16 * j;
        word ^= i * 0x9e3779b97f4a7c15ull;
        word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9ull;
        word = (word ^ word >> 27) * 0x94d049bb133111ebull;
        sum += word ^ word >> 31;
    }
    return over_block<Sum>(sum);
}

extern "C" __global__ void take_over_changes(Pairs pairs) {
    const Share share = share_of(pairs.begin);
    const int k = share.k;
    float* master = pairs.master[k];
    const half_bits* half = pairs.half[k];
    const index_t size = pairs.size[k], blocks = share.all / THREADS;
    for (index_t chunk = share.first / THREADS; chunk * CHUNK < size; chunk += blocks) {
        if (pairs.checksums[k]) {
            const auto found = checksum_of(chunk, size, [=](index_t i) { return half[i]; });
            if (found == pairs.checksums[k][chunk]) continue;
        }
        const index_t end = min(size, (chunk + 1) * CHUNK);
        for (index_t i = chunk * CHUNK + threadIdx.x; i < end; i += THREADS)
            if (rounded(master[i], 0) != half[i]) master[i] = value_of(half[i]);
    }
}

extern "C" __global__ void store_rounded(Pairs pairs, bool* is_saturated) {
    const Share share = share_of(pairs.begin);
    const int k = share.k;
    const float* master = pairs.master[k];
    half_bits* half = pairs.half[k];
    const index_t size = pairs.size[k], blocks = share.all / THREADS;
    for (index_t chunk = share.first / THREADS; chunk * CHUNK < size; chunk += blocks) {
        const auto found = checksum_of(
            chunk, size, [=](index_t i) { return half[i] = rounded(master[i], is_saturated); });
        if (threadIdx.x == 0) pairs.checksums[k][chunk] = found;
    }
}
"""
)
_PAIRS = numpy.dtype(
    [('master', 'u8', 90), ('half', 'u8', 90), ('checksums', 'u8', 90), ('size', 'i8', 90)]
    + [('begin', 'i4', 90)]
)


def _launch_for_pairs(kernel, masters, halves, checksums, *arguments):
    """Launches a kernel for contiguous pairs; others are copied, and what was written put back."""
    rows, copies = [], []
    for master, half, of_half in zip(masters, halves, checksums):
        if not (master.flags.c_contiguous and half.flags.c_contiguous):
            copies.append((master, master.copy(order='C'), half, half.copy(order='C')))
            master, half = copies[-1][1::2]
        rows.append((master, half, 0 if of_half is None else of_half, master.size))
    gpu.launch_for_each(_MASTERS, kernel, _PAIRS, rows, *arguments)
    for master, master_copy, half, half_copy in copies:
        master[...], half[...] = master_copy, half_copy


def discard(params):
    """Drops the master weights: they are made anew from the parameters."""
    for param in params:
        if param.update_rule is not None:
            param.update_rule._fp32_param = None


def serialize(serializer, model):
    """Saves or loads the master weights of a model.

    One that a snapshot does not have is discarded, and made anew by the next update: one of later
    than the snapshot would undo it.

    Args:
        serializer (~chainer.AbstractSerializer): Where to, or from.
        model (~chainer.Link): The model of an optimizer that has been set up.
    """
    for path, param in model.namedparams():
        rule = param.update_rule
        if rule is None:
            continue
        key = path.lstrip('/')  # HDF5 takes a slash in front for the root of the file
        if isinstance(serializer, chainer.Deserializer):
            array = serializer(key, None)
            rule._fp32_param = None
            if array is not None and array.size > 0:
                rule._fp32_param = chainer.Parameter(param.device.send(array), name=param.name)
        else:
            master = rule._fp32_param
            has_none = master is None or master.array is None
            serializer(key, numpy.empty(0, numpy.float32) if has_none else master.array)
