"""How fast an array is measured, beside how fast the same device copies it."""

import dataclasses
import statistics

from chainerlp import kernels
from experiments.benchmarks import on_device

import numpy

_MEBIBYTE = 2**20
_UNTIMED = 2
_BEYOND_ANY_CACHE = 2**29


@dataclasses.dataclass(frozen=True)
class Rate:
    """What was measured at one size.

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


def run(device, turns, mebibytes=(1, 8, 32, 128)):
    """Measures arrays of several sizes, in turns with copying them.

    Args:
        device (~chainer.backend.Device): Where.
        turns (int): How often.
        mebibytes (iterable of int): The sizes.

    Returns:
        list of Rate: One for each size.
    """
    return [_rate(device, turns, size * _MEBIBYTE) for size in mebibytes]


def render(rates):
    """Returns the rates as a table."""
    lines = [f'{"statistics of":>13} {"read GB/s":>10} {"copy GB/s":>10} {"share":>6}']
    for rate in rates:
        lines.append(
            f'{rate.size / _MEBIBYTE:9.0f} MiB {rate.statistics / 1e9:10.2f}'
            f' {rate.copy / 1e9:10.2f} {rate.share:6.0%}'
        )
    return '\n'.join(lines)


def _rate(device, turns, size):
    random = numpy.random.RandomState(0)
    array = device.send(random.standard_normal(size // 2).astype(numpy.float16))
    count = 1 if device.xp is numpy else max(4, _BEYOND_ANY_CACHE // size)
    arrays = [array.copy() for _ in range(count)]
    target = device.xp.empty_like(array)
    measured, copied = [], []
    for turn in range(_UNTIMED + turns):
        times = (
            on_device.seconds_of_device(device, _measure, arrays),
            on_device.seconds_of_device(device, lambda x: device.xp.copyto(target, x), arrays),
        )
        if turn >= _UNTIMED:
            measured.append(array.nbytes / times[0])
            copied.append(2 * array.nbytes / times[1])
    share = statistics.median(m / c for m, c in zip(measured, copied))
    return Rate(size, statistics.median(measured), statistics.median(copied), share)


def _measure(array):
    """What the paper's policy asks for."""
    if isinstance(array, numpy.ndarray):
        return kernels.second_moment(array), kernels.largest_magnitude(array)
    return kernels.measure(array)
