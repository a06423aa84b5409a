"""Memory, host waits and bandwidth are measured."""

import time
import types

from experiments.benchmarks import measurement

import chainer
import numpy
import pytest


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


def test_the_shares_of_parts_are_those_of_their_functions_and_none_is_counted_twice():
    def busy(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    functions = types.SimpleNamespace(inner=lambda: busy(0.1), other=lambda: functions.inner())
    functions.all = lambda: (busy(0.1), functions.other())

    def step():
        busy(0.2)
        functions.all()

    parts = {
        'inner': [(functions, 'inner'), (functions, 'other')],
        'all': [(functions, 'all'), (functions, 'other')],
    }
    shares = measurement.shares(chainer.get_device('@numpy'), step, parts)
    # Of 0.4 s, 0.1 s and 0.2 s; a tick of the clock and what else the process does are in it.
    assert shares == pytest.approx({'inner': 0.25, 'all': 0.5}, abs=0.03)
