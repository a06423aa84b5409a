"""What the benchmark counts on an emulated device."""

from experiments.benchmarks import device_counts, measurement

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


def test_a_page_sets_each_method_beside_fixed_loss_scaling(device, monkeypatch):
    if measurement.count(lambda: None) is None:
        pytest.skip('no device but an emulated one counts')
    monkeypatch.setattr(device_counts, '_WORKLOADS', ('mlp',))
    monkeypatch.setattr(device_counts, '_LAYERS', (2, 4))
    page = device_counts.page(device, lambda text: None)
    rows = [line.strip('| ').split(' | ') for line in page.splitlines() if line.startswith('| ')]
    by_method = {row[0]: row[1:] for row in rows if len(row) == 6}
    launches, ratio = by_method['fixed'][0].split()
    assert ratio == '(1.00)' and int(launches) > 50
    assert {'plain Chainer mixed16', 'adaptive', 'per_sample', 'amax', 'measured'} < {*by_method}
    two, four = next(row[1:] for row in rows if len(row) == 3 and row[0] == 'adaptive')
    assert int(two) < int(four)
