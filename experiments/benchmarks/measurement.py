"""Measuring on a CPU and on a GPU alike: time, memory, host waits, and memory bandwidth."""

import collections
import contextlib
import dataclasses
import functools
import operator
import statistics
import time
import tracemalloc
from unittest import mock

from chainerlp.gpu import on_gpu
from chainerlp.moments import moments_on_gpu
from chainerlp.statistics import largest_magnitude, second_moment

import numpy

# What of CuPy's lets the host wait for the device, as far as it can be replaced to be counted: the
# synchronization of a whole device cannot, and neither Chainer's updates nor ours ask for it.
_WAITING = {
    'ndarray': ('get', 'item', 'tolist', '__bool__', '__float__', '__int__'),
    'cuda.Event': ('synchronize',),
    'cuda.Stream': ('synchronize',),
}
# A host that prepares the next step while the device works on one is part of what is timed.
_STEPS_ON_GPU = 5
_MEBIBYTE = 2**20
_SECTOR = 32  # bytes, of what a GPU's memory moves at least
_UNTIMED = 2
_BEYOND_ANY_CACHE = 2**29


def seconds(device, step):
    """Returns how long a step takes.

    On a GPU it is the mean of some in a row, from an idle device to an idle device; on a CPU the
    time that the process had the CPU, since machines are shared.
    """
    if device.xp is numpy:
        start = time.process_time()
        step()
        return time.process_time() - start
    wait_for(device)
    start = time.perf_counter()
    for _ in range(_STEPS_ON_GPU):
        step()
    wait_for(device)
    return (time.perf_counter() - start) / _STEPS_ON_GPU


def _seconds_of_device(device, work, inputs):
    """Returns how long a device works on an input, without the host's part in it.

    On a GPU ``work`` only launches. The inputs, of which it is given one after the other, are
    together more than a cache holds; on a CPU there is one.
    """
    if device.xp is numpy:
        return seconds(device, lambda: work(inputs[0]))
    cupy = device.xp
    busy = cupy.empty(1 << 28, numpy.uint8)
    other = cupy.empty_like(busy)
    for _ in range(50):  # the host gets ahead of the device meanwhile
        cupy.copyto(other, busy)
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for x in inputs:
        work(x)
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1e3 / len(inputs)


def wait_for(device):
    """Waits until a GPU has done all that it was asked for."""
    if device.xp is not numpy:
        device.device.synchronize()


def peak_memory(device, step):
    """Returns by how many bytes memory grows at most during a step."""
    if device.xp is numpy:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            step()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    before, peak = _memory_of_arrays(step)
    return peak - before


def _memory_of_arrays(step):
    """Returns how many bytes arrays on a GPU take before a step, and how many at most during it.

    What a pool keeps besides depends on what was before.
    """
    import cupy

    class Watch(cupy.cuda.MemoryHook):
        name = 'chainerlp_memory'
        taken = peak = before = cupy.get_default_memory_pool().used_bytes()

        def malloc_postprocess(self, **of_array):
            self.taken += of_array['mem_size']
            self.peak = max(self.peak, self.taken)

        def free_postprocess(self, **of_array):
            self.taken -= of_array['mem_size']

    with Watch() as watch:
        step()
    return watch.before, watch.peak


def host_waits(device, step):
    """Returns how often the host waits for the device during a step; on a CPU, ``None``."""
    if device.xp is numpy:
        step()
        return None
    wait_for(device)
    waits = depth = 0

    def counting(wait):
        def counted(*args, **kwargs):
            nonlocal waits, depth
            # What one of them calls of the others is the same wait, and not every copy is one.
            waits += depth == 0 and kwargs.get('blocking', True)
            depth += 1
            try:
                return wait(*args, **kwargs)
            finally:
                depth -= 1

        return counted

    with contextlib.ExitStack() as stack:
        for path, names in _WAITING.items():
            owner = operator.attrgetter(path)(device.xp)
            for name in names:
                replaced = counting(getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, replaced))
        step()
    return waits


def shares(device, step, parts):
    """Returns which shares of a step are spent within functions, a dict by the parts' names.

    On a GPU the host waits before and after each of them, so that only they are timed: the step
    takes longer than it would.

    Args:
        device (~chainer.backend.Device): Where.
        step (callable): What is timed.
        parts (dict of str to list): The functions of each part: what has them as an attribute, and
            its name. What one of them calls of the same part is not counted twice.
    """
    clock = time.process_time if device.xp is numpy else time.perf_counter

    def now():
        wait_for(device)
        return clock()

    within, depth = dict.fromkeys(parts, 0.0), collections.Counter()

    def timed(part, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            depth[part] += 1
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                depth[part] -= 1
                within[part] += (now() - start) * (depth[part] == 0)

        return call

    with contextlib.ExitStack() as stack:
        for part, owners in parts.items():
            for owner, name in owners:
                replaced = timed(part, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, replaced))
        start = now()
        step()
        whole = now() - start
    return {part: seconds / whole for part, seconds in within.items()}


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a step asks of a device.

    Attributes:
        launches (int): Of kernels, and of matrix products.
        waits (int): How often the host waits.
        copies (int): To the device, or from it.
        moved (int): Bytes that instructions of kernels load and store: what many threads read
            counts for each. Of products, the factors and the result. Where kernels are not traced,
            only of products; likewise the next.
        touched (int): Bytes of the sectors of 32 bytes of memory that a launch loads, each once,
            and of those that it stores: what memory has to move at least.
        peak (int): Bytes that arrays take at most.
    """

    launches: int
    waits: int
    copies: int
    moved: int
    touched: int
    peak: int


def count(step):
    """Returns the :class:`Counts` of a step, or ``None`` where no device counts."""
    # Where the device is emulated CuPy has been imported through it; elsewhere there is no such
    # module, and importing it would fail in ways of its own.
    try:
        import cuemu
    except (ImportError, KeyError, OSError):
        return None
    with cuemu.counting() as found:
        _, peak = _memory_of_arrays(step)
    return Counts(
        launches=found['launches'] + found['blas'],
        waits=found['stream_sync'] + found['device_sync'] + found['event_sync'],
        copies=found['memcpy_h2d'] + found['memcpy_d2h'],
        moved=found['loaded'] + found['stored'],
        touched=_SECTOR * (found['sectors_loaded'] + found['sectors_stored']),
        peak=peak,
    )


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """How fast an array is measured, beside how fast the same device copies it.

    Attributes:
        size (int): Bytes of the array, of float16.
        statistics (float): Bytes per second that the statistics of a gradient read.
        copy (float): Bytes per second that a copy reads and writes.
        share (float): The first as a part of the second; median of the turns.
    """

    size: int
    statistics: float
    copy: float
    share: float


def measure_bandwidth(device, turns, mebibytes=(1, 8, 32, 128)):
    """Returns a :class:`Bandwidth` for arrays of each size, measured in turns with copying them."""
    return [_bandwidth(device, turns, size * _MEBIBYTE) for size in mebibytes]


def render_bandwidth(rates):
    """Returns the rates as a table."""
    lines = [f'{"statistics of":>13} {"read GB/s":>10} {"copy GB/s":>10} {"share":>6}']
    for rate in rates:
        lines.append(
            f'{rate.size / _MEBIBYTE:9.0f} MiB {rate.statistics / 1e9:10.2f}'
            f' {rate.copy / 1e9:10.2f} {rate.share:6.0%}'
        )
    return '\n'.join(lines)


def _bandwidth(device, turns, size):
    random = numpy.random.RandomState(0)
    array = device.send(random.standard_normal(size // 2).astype(numpy.float16))
    count = 1 if device.xp is numpy else max(4, _BEYOND_ANY_CACHE // size)
    arrays = [array.copy() for _ in range(count)]
    target = device.xp.empty_like(array)
    measured, copied = [], []
    for turn in range(_UNTIMED + turns):
        times = (
            _seconds_of_device(device, _statistics, arrays),
            _seconds_of_device(device, lambda x: device.xp.copyto(target, x), arrays),
        )
        if turn >= _UNTIMED:
            measured.append(array.nbytes / times[0])
            copied.append(2 * array.nbytes / times[1])
    share = statistics.median(m / c for m, c in zip(measured, copied))
    return Bandwidth(size, statistics.median(measured), statistics.median(copied), share)


def _statistics(array):
    """Computes what the paper's policy needs."""
    if on_gpu(array):
        return moments_on_gpu(array)
    return second_moment(array), largest_magnitude(array)
