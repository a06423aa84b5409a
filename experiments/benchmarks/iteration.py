"""What scaling costs: the time of a training iteration by method, side by side in one run."""

import dataclasses
import json
import os
import platform
import statistics

from chainerlp.extensions.atomic_write import write_text
from experiments.benchmarks import methods, on_device

import chainer
import numpy
from chainer import optimizers

# The first iteration builds what later ones use: kernels, the optimizer's state.
_UNTIMED = 2
_MEBIBYTE = 2**20


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


def run(subject, compared, device, turns, progress=lambda text: None):
    """Times every method.

    Args:
        subject (experiments.benchmarks.subjects.Subject): What is trained.
        compared (dict): What :func:`~experiments.benchmarks.methods.compared` returned.
        device (~chainer.backend.Device): Where.
        turns (int): How many iterations of each method are timed.
        progress (callable): Is told what is being done.

    Returns:
        list of Row: One for each method.
    """
    steps, waits, memory = {}, {}, {}
    for name, method in compared.items():
        progress(f'preparing {name}')
        steps[name] = _step(subject, device, *method)
        steps[name]()
        waits[name] = on_device.host_waits(device, steps[name])
        memory[name] = on_device.peak_memory(device, steps[name])
    times = {name: [] for name in steps}
    for turn in range(turns):
        progress(f'turn {turn + 1} of {turns}')
        for name, step in steps.items():
            times[name].append(on_device.seconds(device, step))
    reference = times[methods.REFERENCE]
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


def render(subject, device, rows):
    """Returns the rows as a table, with the batch that was timed."""
    size = '×'.join(map(str, subject.shape))
    lines = [
        f'{subject.what}, batch {subject.batch_size} of {size}: {_what_time(device)} of a training'
        f' iteration on {device_name(device)}',
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


def save(path, subject, device, rows, rates):
    """Writes what was measured as json."""
    content = {
        'model': subject.name,
        'batch_size': subject.batch_size,
        'shape': subject.shape,
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


def _what_time(device):
    return 'CPU time' if device.xp is numpy else 'time'


def _step(subject, device, dtype, prepare):
    with chainer.using_config('dtype', dtype):
        model, arguments = subject.prepare()
    model.to_device(device)
    arguments = [device.send(array) for array in arguments]
    optimizer = prepare(optimizers.MomentumSGD(lr=1e-3), model)
    return lambda: optimizer.update(model, *arguments)
