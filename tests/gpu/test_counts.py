"""What the benchmark counts on an emulated device."""

from experiments.benchmarks import measurement

import numpy
import pytest

pytestmark = pytest.mark.gpu


def test_launches_waits_and_copies_are_counted(device):
    if measurement.count(lambda: None) is None:
        pytest.skip('no device but an emulated one counts')
    cupy = device.xp
    x = device.send(numpy.ones((64, 64), 'f'))
    cupy.dot(x, x)  # cuBLAS is there, and kernels are compiled
    x * 2

    def step():
        y = x * 2
        z = cupy.dot(y, y)
        float(z[0, 0])

    counts = measurement.count(step)
    assert counts.launches == 2 and counts.waits == 1 and counts.copies == 1
    assert counts.peak >= 2 * x.nbytes
