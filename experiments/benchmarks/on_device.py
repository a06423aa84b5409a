"""Measuring on a CPU and on a GPU alike: time, memory, and how often the host waits."""

import contextlib
import statistics
import time
import tracemalloc

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


def seconds_of_device(device, work, inputs):
    """Returns how long a device works on an input, without the host's part in it.

    Args:
        device (~chainer.backend.Device): Where.
        work (callable): Takes an input; on a GPU it only launches.
        inputs (list): What it is given in turns; together more than a cache holds.
    """
    if device.xp is numpy:
        return statistics.median(seconds(device, lambda x=x: work(x)) for x in inputs)
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
    pool = device.xp.get_default_memory_pool()
    wait_for(device)
    pool.free_all_blocks()
    before = pool.used_bytes()
    step()
    wait_for(device)
    return pool.total_bytes() - before


def host_waits(device, step):
    """Returns how often the host waits for the device during a step; on a CPU, ``None``."""
    if device.xp is numpy:
        step()
        return None
    wait_for(device)
    with _counting(device.xp) as counted:
        step()
    return len(counted)


@contextlib.contextmanager
def _counting(cupy):
    counted, inside = [], []
    with contextlib.ExitStack() as stack:
        for path, names in _WAITING.items():
            owner = cupy
            for part in path.split('.'):
                owner = getattr(owner, part)
            for name in names:
                stack.enter_context(_counted(owner, name, counted, inside))
        yield counted


@contextlib.contextmanager
def _counted(owner, name, counted, inside):
    original = getattr(owner, name)

    def counting(*args, **kwargs):
        # What one of them calls of the others is the same wait, and not every copy is one.
        if not inside and kwargs.get('blocking', True):
            counted.append(name)
        inside.append(name)
        try:
            return original(*args, **kwargs)
        finally:
            inside.pop()

    is_own = name in vars(owner)
    setattr(owner, name, counting)
    try:
        yield
    finally:
        setattr(owner, name, original) if is_own else delattr(owner, name)
