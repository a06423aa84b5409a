"""Memory, host waits and bandwidth are measured."""

import types

from experiments.benchmarks import measurement

import chainer
import numpy


def test_memory_is_what_a_step_takes_at_most():
    def step():
        for _ in range(3):
            numpy.ones(1 << 20, numpy.uint8)

    peak = measurement.peak_memory(chainer.get_device('@numpy'), step)
    assert 1 << 20 <= peak < 1.1 * (1 << 20)


def test_waits_of_the_host_are_counted_and_nothing_is_left_behind():
    class Array:
        def get(self, blocking=True):
            if blocking:
                Stream().synchronize()
            return 1

        item = tolist = __bool__ = __float__ = __int__ = get

    class Event:
        def synchronize(self):
            return 'done'

    class Stream(Event):
        pass

    class FakeCuPy:
        ndarray = Array
        cuda = types.SimpleNamespace(Event=Event, Stream=Stream)

    class FakeDevice:
        xp = FakeCuPy
        device = types.SimpleNamespace(synchronize=lambda: None)

    before = dict(vars(Array)), dict(vars(Stream))
    array, event = Array(), Event()
    assert measurement.host_waits(FakeDevice, lambda: (array.get(), event.synchronize())) == 2
    assert measurement.host_waits(FakeDevice, lambda: None) == 0
    assert measurement.host_waits(FakeDevice, lambda: array.get(blocking=False)) == 0
    assert (dict(vars(Array)), dict(vars(Stream))) == before


def test_the_statistics_are_timed_beside_a_copy():
    rates = measurement.measure_bandwidth(chainer.get_device('@numpy'), turns=1, mebibytes=[1])
    assert len(rates) == 1 and rates[0].size == 1 << 20
    assert '1 MiB' in measurement.render_bandwidth(rates)
