"""What scaling costs: the time of a training iteration by method, side by side in one run."""

import dataclasses
import json
import os
import platform
import statistics

import chainerlp
from chainerlp import policies
from chainerlp.extensions.atomic_write import write_text
from experiments.benchmarks import measurement
from experiments.run import optimizers

import chainer
import numpy

_MEBIBYTE = 2**20
# Everything is set beside it: Chainer's own backward pass and static loss scaling, in the scaled
# layers' arithmetic.
REFERENCE = 'fixed'
PLAIN = 'plain Chainer mixed16'
POLICIES = {**optimizers.POLICIES, 'abs_range': policies.AbsRange, 'log_normal': policies.LogNormal}
_INTERVALS = (1, 10, 100)


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method costs.

    Iterations are timed in turns, one of each method, so that what else the machine does meets all.

    Attributes:
        method (str): The method.
        median (float): Median time of an iteration, in seconds.
        fastest (float): The shortest, in seconds.
        slowest (float): The longest, in seconds.
        ratio (float): Median of the ratios to static loss scaling in the same turn.
        host_waits (int): How often the host waits for the device in an iteration; ``None`` on CPUs.
        peak_memory (int): Bytes by which memory grows at most in an iteration.
    """

    method: str
    median: float
    fastest: float
    slowest: float
    ratio: float
    host_waits: object
    peak_memory: int


def methods(names, with_plain=True):
    """Returns the methods of a comparison.

    Args:
        names (iterable of str): Policies, by their names in ``POLICIES``; each at three intervals.
        with_plain (bool): Whether plain Chainer in mixed16 is one of them. On a CPU, where NumPy
            multiplies float16 matrices, it takes tens of times as long as the rest.

    Returns:
        dict of str to tuple: For each method the dtype to build the model in, and what sets an
        optimizer up for it.
    """
    found = {'fp32': (numpy.dtype('float32'), _chainers)}
    if with_plain:
        found[PLAIN] = (chainer.mixed16, _chainers)
    found[REFERENCE] = (chainer.mixed16, _fixed)
    for name in names:
        for interval in _INTERVALS:
            policy = POLICIES[name](interval=interval)
            found[f'{name}, interval {interval}'] = (chainer.mixed16, _wrapped(policy))
    return found


def run(workload, compared, device, turns, progress=lambda text: None):
    """Times every method.

    Args:
        workload (experiments.benchmarks.workloads.Workload): What is trained.
        compared (dict): What :func:`methods` returned.
        device (~chainer.backend.Device): Where.
        turns (int): How many iterations of each method are timed.
        progress (callable): Is told what is being done.

    Returns:
        list of Row: One for each method.
    """
    steps, waits, memory = {}, {}, {}
    for name, method in compared.items():
        progress(f'preparing {name}')
        steps[name] = _step(workload, device, *method)
        steps[name]()
        waits[name] = measurement.host_waits(device, steps[name])
        memory[name] = measurement.peak_memory(device, steps[name])
    times = {name: [] for name in steps}
    for turn in range(turns):
        progress(f'turn {turn + 1} of {turns}')
        for name, step in steps.items():
            times[name].append(measurement.seconds(device, step))
    reference = times[REFERENCE]
    return [
        Row(
            name,
            statistics.median(times[name]),
            min(times[name]),
            max(times[name]),
            statistics.median(time / other for time, other in zip(times[name], reference)),
            waits[name],
            memory[name],
        )
        for name in steps
    ]


def render(workload, device, rows):
    """Returns the rows as a table, with the batch that was timed."""
    size = '×'.join(map(str, workload.shape))
    time = 'CPU time' if device.xp is numpy else 'time'
    lines = [
        f'{workload.what}, batch {workload.batch_size} of {size}: {time} of a training iteration'
        f' on {device_name(device)}',
        f'{"method":24} {"median ms":>10} {"range ms":>17} {"to fixed":>9} {"waits":>6}'
        f' {"memory MiB":>11}',
    ]
    for row in rows:
        spread = f'{row.fastest * 1e3:.1f}–{row.slowest * 1e3:.1f}'
        waits = '-' if row.host_waits is None else row.host_waits
        lines.append(
            f'{row.method:24} {row.median * 1e3:10.1f} {spread:>17} {row.ratio:9.3f} {waits:>6}'
            f' {row.peak_memory / _MEBIBYTE:11.1f}'
        )
    return '\n'.join(lines)


def save(path, workload, device, rows, rates):
    """Writes what was measured as json."""
    content = {
        'model': workload.name,
        'batch_size': workload.batch_size,
        'shape': workload.shape,
        'device': device_name(device),
        'rows': [dataclasses.asdict(row) for row in rows],
        'bandwidth': [dataclasses.asdict(rate) for rate in rates],
    }
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    write_text(path, json.dumps(content, indent=2))


def device_name(device):
    """Names a device for a table."""
    if device.xp is numpy:
        return f'a CPU ({platform.machine()})'
    properties = device.xp.cuda.runtime.getDeviceProperties(device.device.id)
    return properties['name'].decode()


def _chainers(optimizer, model):
    optimizer.use_fp32_update()
    return optimizer.setup(model)


def _fixed(optimizer, model):
    chainerlp.convert(model, policies.Fixed(1))
    optimizer.loss_scaling(scale=128.0)
    return _chainers(optimizer, model)


def _wrapped(policy):
    return lambda optimizer, model: chainerlp.AdaptiveLossScaling(optimizer, policy).setup(model)


def _step(workload, device, dtype, prepare):
    with chainer.using_config('dtype', dtype):
        model, arguments = workload.prepare()
    model.to_device(device)
    arguments = [device.send(array) for array in arguments]
    optimizer = prepare(chainer.optimizers.MomentumSGD(lr=1e-3), model)
    return lambda: optimizer.update(model, *arguments)
