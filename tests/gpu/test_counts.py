"""What the benchmark counts on an emulated device."""

import os

from experiments.benchmarks import device_counts, iteration, measurement
from experiments.run import optimizers

import chainer
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

    before = cupy.get_default_memory_pool().used_bytes()
    counts = measurement.count(step)
    assert counts.launches == 2 and counts.waits == 1 and counts.copies == 1
    assert counts.peak == before + 2 * x.nbytes
    assert measurement.peak_memory(device, step) == 2 * x.nbytes


IS_TRACED = os.environ.get('CUEMU_TRACE', '0') != '0'
traced = pytest.mark.skipif(not IS_TRACED, reason='CUEMU_TRACE=1 traces what kernels load')


@traced
def test_what_is_read_again_is_moved_and_touched_once(device):
    x, number = device.xp.ones(8000, 'f'), device.xp.ones((), 'f')
    x * number
    counts = measurement.count(lambda: x * number)
    assert counts.moved == 3 * x.nbytes  # x, the number for each of its elements, the product
    assert counts.touched == 2 * x.nbytes + 32


def test_of_a_product_the_factors_and_the_result_are_counted(device):
    if measurement.count(lambda: None) is None:
        pytest.skip('no device but an emulated one counts')
    x = device.xp.ones((64, 64), 'f')
    counts = measurement.count(lambda: device.xp.dot(x, x))
    assert counts.moved == counts.touched == 3 * x.nbytes


def test_a_page_sets_each_method_beside_fixed_loss_scaling(device, monkeypatch):
    if measurement.count(lambda: None) is None:
        pytest.skip('no device but an emulated one counts')
    monkeypatch.setattr(device_counts, '_WORKLOADS', ('mlp',))
    monkeypatch.setattr(device_counts, '_LAYERS', (2, 4))
    page = device_counts.page(device, lambda text: None)
    rows = [line.strip('| ').split(' | ') for line in page.splitlines() if line.startswith('| ')]
    by_method = {row[0]: row[1:] for row in rows if len(row) == 7}
    launches, ratio = by_method['fixed'][0].split()
    assert ratio == '(1.00)' and int(launches) > 50
    assert {'plain Chainer mixed16', 'adaptive', 'per_sample', 'amax', 'measured'} < {*by_method}
    two, four = next(row[1:] for row in rows if len(row) == 3 and row[0] == 'adaptive')
    assert int(two) < int(four)


@traced
def test_adaptive_scaling_moves_as_many_bytes_as_fixed_loss_scaling(device):
    workload = iteration.get_workload('resnet20', chainer.get_device('@numpy'))
    methods = iteration.methods(optimizers.POLICIES)
    fixed, adaptive = (
        device_counts._count_update(workload, device, methods[name])
        for name in (iteration.REFERENCE, 'adaptive, interval 1')
    )
    assert adaptive.moved <= 1.02 * fixed.moved
    assert adaptive.touched <= 1.02 * fixed.touched
