"""Measuring on a CPU and on a GPU alike: time, memory, and how often the host waits."""

import contextlib
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


def seconds(device, step):
    """Returns how long a step takes.

    On a GPU from an idle device to an idle device; on a CPU it is the time that the process had the
    CPU, since machines are shared.
    """
    if device.xp is numpy:
        start = time.process_time()
        step()
        return time.process_time() - start
    wait_for(device)
    start = time.perf_counter()
    step()
    wait_for(device)
    return time.perf_counter() - start


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
    with _counting(device.xp) as counted:
        step()
    return len(counted)


@contextlib.contextmanager
def _counting(cupy):
    counted = []
    with contextlib.ExitStack() as stack:
        for path, names in _WAITING.items():
            owner = cupy
            for part in path.split('.'):
                owner = getattr(owner, part)
            for name in names:
                stack.enter_context(_counted(owner, name, counted))
        yield counted


@contextlib.contextmanager
def _counted(owner, name, counted):
    original = getattr(owner, name)

    def counting(*args, **kwargs):
        counted.append(name)
        return original(*args, **kwargs)

    is_own = name in vars(owner)
    setattr(owner, name, counting)
    try:
        yield
    finally:
        setattr(owner, name, original) if is_own else delattr(owner, name)
