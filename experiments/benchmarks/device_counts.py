"""A page of what training iterations ask of a GPU, counted by an emulated one."""

import gc

from experiments.benchmarks import iteration, measurement
from experiments.config.errors import ConfigError
from experiments.models.small_models import MLP
from experiments.reports.tables import markdown_table
from experiments.run import optimizers

import chainer
import numpy

_WORKLOADS = ('cnn', 'resnet20', 'resnet50', 'ssd300')
_LAYERS = (10, 100, 500)
_WARM_UP = 3  # updates, until memory is taken and the first scale is a delayed one
_MEBIBYTE = 2**20
_HEADER = ['method', 'launches', 'waits', 'copies', 'MiB moved', 'MiB touched', 'peak MiB']
_PAGE = """\
# Counts on an emulated device

`python -m experiments benchmark --device 0 --counts FILE` in the environment of
`make test-gpu EMULATED=1`, with `CUEMU_TRACE=1`: what one training iteration asks of a device,
after {warm_up} others, and in brackets its ratio to fixed loss scaling in the scaled layers'
arithmetic. *Launches* are of kernels and of matrix products; *waits* are the host's; *copies* go to
the device or come from it. *MiB moved* are what instructions of kernels load and store: what each
thread reads counts each time, however small. *MiB touched* are the sectors of 32 bytes that a
launch loads, each once, and those that it stores: what memory has to move at least. Products count
with their factors and results in both. *peak MiB* is the memory that arrays take at most. None of
it is time.
"""


def page(device, progress):
    """Returns a page of tables: models by method, and how launches grow with layers.

    Args:
        device (~chainer.backend.Device): An emulated GPU.
        progress (callable): Is told in words what is being done.

    Raises:
        ConfigError: If the device does not count.
    """
    if measurement.count(lambda: None) is None or device.xp is numpy:
        raise ConfigError('--counts: given a device that counts nothing, allowed: an emulated one')
    compared = {
        name.replace(', interval 1', ''): method
        for name, method in iteration.methods(optimizers.POLICIES).items()
        if not name.endswith(('interval 10', 'interval 100', 'compute float16'))
    }
    parts = [_PAGE.format(warm_up=_WARM_UP)]
    for name in _WORKLOADS:
        # At the sizes for a CPU: that is what computes here.
        workload = iteration.get_workload(name, chainer.get_device('@numpy'))
        found = {}
        for method, how in compared.items():
            progress(f'{workload.what}: {method}')
            found[method] = _count_update(workload, device, how)
        size = '×'.join(map(str, workload.shape))
        parts.append(f'## {workload.what}, batch {workload.batch_size} of {size}\n')
        parts.append(_table(found) + '\n')
    parts.append('## How launches grow with layers: an MLP of 64 units\n')
    rows = []
    for method, how in compared.items():
        launches = []
        for layers in _LAYERS:
            progress(f'MLP of {layers} layers: {method}')
            launches.append(_count_update(_mlp(layers), device, how).launches)
        rows.append([method, *map(str, launches)])
    parts.append(markdown_table(['method', *(f'{n} layers' for n in _LAYERS)], rows) + '\n')
    return '\n'.join(parts)


def _mlp(layers):
    return iteration.Workload('mlp', 'MLP', lambda: MLP(64, 64, 10, layers), (64,), 8)


def _count_update(workload, device, how):
    gc.collect()  # what the method before has left would count as taken
    device.xp.get_default_memory_pool().free_all_blocks()
    step = iteration.step_of(workload, device, *how)
    for _ in range(_WARM_UP):
        step()
    return measurement.count(step)


def _table(found):
    reference = found[iteration.REFERENCE]
    rows = []
    for method, counts in found.items():
        cells = [_beside(counts.launches, reference.launches, 1, 0)]
        cells += [str(counts.waits), str(counts.copies)]
        cells.append(_beside(counts.moved, reference.moved, _MEBIBYTE, 1))
        cells.append(_beside(counts.touched, reference.touched, _MEBIBYTE, 1))
        cells.append(_beside(counts.peak, reference.peak, _MEBIBYTE, 1))
        rows.append([method, *cells])
    return markdown_table(_HEADER, rows)


def _beside(value, reference, unit, digits):
    ratio = f' ({value / reference:.2f})' if reference else ''
    return f'{value / unit:.{digits}f}{ratio}'
