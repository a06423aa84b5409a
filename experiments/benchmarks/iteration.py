"""What scaling costs: the time of a training iteration by method, side by side in one run.

What is trained is a workload: a model, and a batch of made-up data for it.
"""

import dataclasses
import json
import os
import platform
import statistics
from typing import Callable, Optional

import chainerlp
from chainerlp import layer_scale, moments, policies
from chainerlp import statistics as array_statistics
from chainerlp.extensions.files import write_text
from chainerlp.policies import per_sample_kernels
from chainerlp.policies.policy import Bounded
from experiments.benchmarks import measurement
from experiments.benchmarks.measurement import Counts, count
from experiments.models.resnet import CIFARResNet, ImageNetResNet
from experiments.models.segnet import SegNetBasic
from experiments.models.small_models import MLP, SmallCNN
from experiments.models.ssd import PIXEL_SCALE, SSD
from experiments.run import optimizers
from experiments.tasks import classification, detection, segmentation

import chainer
import numpy
from chainer import links

_MEBIBYTE = 2**20
# Everything is set beside it: Chainer's own backward pass and static loss scaling, in the scaled
# layers' arithmetic.
REFERENCE = 'fixed'
"""str: The method that all others are set beside."""

PLAIN = 'plain Chainer mixed16'
_UNSCALED = 'fp32', PLAIN, REFERENCE
_PARTS = {
    'statistics': [
        *((array_statistics, name) for name in ('largest_magnitude', 'second_moment')),
        *((array_statistics, name) for name in ('second_moments_by_sample', 'log_moments')),
        *((array_statistics, name) for name in ('squares_by_position', 'binned')),
        (moments, 'launch_with_moments'),
        (per_sample_kernels, 'of_positions'),
    ],
    # The scales of weight gradients, where a policy has them, are not a LayerScale's.
    'scaling': [(layer_scale.LayerScale, 'choose'), (Bounded, 'scale_and_total')],
}
THEIR_SHARES = 0.271, 0.488
"""tuple of float: Statistics and all of scaling, of the authors' profile of SSD512 (batch 8, scales
chosen in every iteration; "SSD Result.ipynb" in their repository)."""

POLICIES = {**optimizers.POLICIES, 'abs_range': policies.AbsRange, 'log_normal': policies.LogNormal}
_INTERVALS = (1, 10, 100)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model and its batch.

    Attributes:
        what (str): Says in words what it is.
        build (callable): Builds the model without its loss.
        shape (tuple of int): Shape of an example.
        batch_size (int): Examples in a batch.
    """

    name: str
    what: str
    build: Callable
    shape: tuple
    batch_size: int

    def prepare(self):
        """Returns a link that gives the loss, and its arguments, always the same, a tuple.

        They are in Chainer's configured dtype.
        """
        numpy.random.seed(0)  # Chainer's initializers draw from it
        random = numpy.random.RandomState(0)
        model = self.build()
        x = random.standard_normal((self.batch_size, *self.shape)).astype(chainer.get_dtype())
        if isinstance(model, SSD):
            return detection.TrainChain(model), (x, *self._boxes(model, random))
        if isinstance(model, SegNetBasic):
            labels = random.randint(0, 11, (self.batch_size, *self.shape[1:])).astype(numpy.int32)
            return segmentation.TrainChain(model), (x, labels)
        classes = random.randint(0, 10, self.batch_size).astype(numpy.int32)
        metrics = classification.loss, classification.accuracy
        return links.Classifier(model, *metrics), (x, classes)

    def _boxes(self, model, random):
        shape = self.batch_size, len(model.default_boxes)
        locs = random.standard_normal((*shape, 4)).astype(numpy.float32)
        # One default box in 500 is an object's, about as many as in VOC.
        classes = random.randint(1, 21, shape) * (random.rand(*shape) < 2e-3)
        return locs, classes.astype(numpy.int32)


def _ssd(size, width):
    # Scaled as for a training from scratch: its first gradients would leave float16 otherwise.
    return SSD(20, size, width, PIXEL_SCALE)


# On a CPU at sizes at which an iteration of plain Chainer in float16 still ends within a minute.
_ON_CPU = [
    Workload('mlp', 'MLP', lambda: MLP(784, 512, 10, 6), (784,), 128),
    Workload('cnn', 'small CNN', lambda: SmallCNN(3, 10), (3, 32, 32), 32),
    Workload('resnet20', 'ResNet-20', lambda: CIFARResNet(20, 10), (3, 32, 32), 8),
    Workload('resnet18', 'ResNet-18', lambda: ImageNetResNet(18, 1000), (3, 64, 64), 2),
    Workload('resnet50', 'ResNet-50', lambda: ImageNetResNet(50, 1000), (3, 64, 64), 2),
    Workload('ssd300', 'SSD300, an eighth as wide', lambda: _ssd(300, 0.125), (3, 300, 300), 1),
    Workload('ssd512', 'SSD512, an eighth as wide', lambda: _ssd(512, 0.125), (3, 512, 512), 1),
    Workload('segnet', 'SegNet of 16 channels', lambda: SegNetBasic(11, 16), (3, 90, 120), 2),
]
_ON_GPU = [
    Workload('mlp', 'MLP', lambda: MLP(784, 2048, 10, 6), (784,), 1024),
    Workload('cnn', 'small CNN', lambda: SmallCNN(3, 10), (3, 32, 32), 256),
    Workload('resnet20', 'ResNet-20', lambda: CIFARResNet(20, 10), (3, 32, 32), 128),
    Workload('resnet18', 'ResNet-18', lambda: ImageNetResNet(18, 1000), (3, 224, 224), 64),
    Workload('resnet50', 'ResNet-50', lambda: ImageNetResNet(50, 1000), (3, 224, 224), 32),
    Workload('ssd300', 'SSD300', lambda: _ssd(300, 1.0), (3, 300, 300), 8),
    Workload('ssd512', 'SSD512', lambda: _ssd(512, 1.0), (3, 512, 512), 8),
    Workload('segnet', 'SegNet', lambda: SegNetBasic(11), (3, 360, 480), 12),
]
WORKLOADS = tuple(workload.name for workload in _ON_CPU)


def get_workload(name, device):
    """Returns a :class:`Workload` by its name, in the size for a device."""
    workloads = _ON_CPU if device.xp is numpy else _ON_GPU
    return next(workload for workload in workloads if workload.name == name)


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method costs.

    Attributes:
        median (float): Median time of an iteration, in seconds.
        fastest (float): The shortest, in seconds.
        slowest (float): The longest, in seconds.
        ratio (float): Median of the ratios to static loss scaling in the same turn.
        host_waits (int): How often the host waits for the device in an iteration; ``None`` on CPUs.
        peak_memory (int): Bytes by which memory grows at most in an iteration.
        counts (Counts): What an iteration asks of the device; ``None`` where it does not tell.
        statistics (float): Share of an iteration that measuring gradients and weights takes; on a
            GPU the choice of α, which is in the same launch, as well.
        scaling (float): Share that all of choosing α takes, that included; applying it rides in the
            product or its rounding. The two are the authors' ``calc_stat`` and ``total``.
    """

    method: str
    median: float
    fastest: float
    slowest: float
    ratio: float
    host_waits: Optional[int]
    peak_memory: int
    counts: Optional[Counts]
    statistics: float
    scaling: float


def methods(names, with_plain=True):
    """Returns what is compared: fp32, static loss scaling, and each policy.

    A policy at three intervals in mixed16, and once in a float32 model that computes in float16.

    Args:
        names (iterable of str): Policies, by their names in ``POLICIES``.
        with_plain (bool): Whether plain Chainer in mixed16, with its static loss scaling in its own
            arithmetic, is one of them. On a CPU, where NumPy
            multiplies float16 matrices, it takes tens of times as long as the rest.

    Returns:
        dict of str to tuple: Of each method the dtype of the model, and what sets an optimizer up.
    """
    found = {'fp32': (numpy.dtype('float32'), _chainers)}
    if with_plain:
        found[PLAIN] = (chainer.mixed16, _statically_scaled)
    found[REFERENCE] = (chainer.mixed16, _fixed)
    for name in names:
        for interval in _INTERVALS:
            policy = POLICIES[name](interval=interval)
            found[f'{name}, interval {interval}'] = (chainer.mixed16, _wrapped(policy))
        computing = _wrapped(POLICIES[name](), compute_dtype='float16')
        found[f'{name}, compute float16'] = (numpy.dtype('float32'), computing)
    return found


def run(workload, compared, device, turns, progress):
    """Times iterations in turns, one of each method: what else the machine does meets all.

    Args:
        workload (Workload): What is trained.
        compared (dict): What :func:`methods` returned.
        device (~chainer.backend.Device): Where.
        turns (int): How many iterations of each method are timed.
        progress (callable): Is told in words what is being done.

    Returns:
        list of Row: One for each method.
    """
    steps, asked = {}, {}
    for name, method in compared.items():
        progress(f'preparing {name}')
        step = steps[name] = step_of(workload, device, *method)
        step()
        waits = measurement.host_waits(device, step)
        memory = measurement.peak_memory(device, step)
        asked[name] = waits, memory, None if device.xp is numpy else count(step)
    times, parts = ({name: [] for name in steps} for _ in range(2))
    for turn in range(turns):
        progress(f'turn {turn + 1} of {turns}')
        for name, step in steps.items():
            times[name].append(measurement.seconds(device, step))
            if name not in _UNSCALED:
                parts[name].append(measurement.shares(device, step, _PARTS))
    rows = []
    for name, of_method in times.items():
        ratio = statistics.median(a / b for a, b in zip(of_method, times[REFERENCE]))
        median, fastest, slowest = statistics.median(of_method), min(of_method), max(of_method)
        of_parts = (
            statistics.median([turn[part] for turn in parts[name]] or [0.0]) for part in _PARTS
        )
        rows.append(Row(name, median, fastest, slowest, ratio, *asked[name], *of_parts))
    return rows


def render(workload, device, rows):
    """Returns the rows as a table, with the batch that was timed."""
    size = '×'.join(map(str, workload.shape))
    time = 'CPU time' if device.xp is numpy else 'time'
    lines = [
        f'{workload.what}, batch {workload.batch_size} of {size}: {time} of a training iteration'
        f' on {_device_name(device)}',
        f'{"method":28} {"median ms":>10} {"range ms":>17} {"to fixed":>9} {"waits":>6}'
        f' {"memory MiB":>11}',
    ]
    has_counts = any(row.counts is not None for row in rows)
    if has_counts:
        lines[-1] += f' {"launches":>9} {"copies":>7} {"moved MiB":>10}'
    for row in rows:
        spread = f'{row.fastest * 1e3:.1f}–{row.slowest * 1e3:.1f}'
        waits = '–' if row.host_waits is None else row.host_waits
        lines.append(
            f'{row.method:28} {row.median * 1e3:10.1f} {spread:>17} {row.ratio:9.3f} {waits:>6}'
            f' {row.peak_memory / _MEBIBYTE:11.1f}'
        )
        if has_counts:
            counts = row.counts
            moved = counts.moved / _MEBIBYTE
            lines[-1] += f' {counts.launches:9} {counts.copies:7} {moved:10.1f}'
    return '\n'.join([*lines, '', *_render_shares(rows)])


def _render_shares(rows):
    """Returns lines of a table of the overhead, with the authors' in the last one."""
    yield f'{"share of an iteration":40} {"statistics":>10} {"scaling":>8}'
    theirs = 'the authors: SSD512, a GPU without cuDNN', *THEIR_SHARES
    ours = [(row.method, row.statistics, row.scaling) for row in rows if row.scaling > 0]
    for what, statistic, scaling in (*ours, theirs):
        yield f'{what:40} {statistic:10.1%} {scaling:8.1%}'


def save(path, workload, device, rows, rates):
    """Writes what was measured as json."""
    content = {
        'model': workload.name,
        'batch_size': workload.batch_size,
        'shape': workload.shape,
        'device': _device_name(device),
        'rows': [dataclasses.asdict(row) for row in rows],
        'bandwidth': [dataclasses.asdict(rate) for rate in rates],
    }
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    write_text(path, json.dumps(content, indent=2))


def _device_name(device):
    if device.xp is numpy:
        return f'a CPU ({platform.machine()})'
    properties = device.xp.cuda.runtime.getDeviceProperties(device.device.id)
    return properties['name'].decode()


def _chainers(optimizer, model):
    optimizer.use_fp32_update()
    return optimizer.setup(model)


def _statically_scaled(optimizer, model):
    optimizer.loss_scaling(scale=128.0)
    return _chainers(optimizer, model)


def _fixed(optimizer, model):
    return _statically_scaled(optimizer, chainerlp.convert(model, policies.Fixed(1)))


def _wrapped(policy, **options):
    def setup(optimizer, model):
        return chainerlp.AdaptiveLossScaling(optimizer, policy, **options).setup(model)

    return setup


def step_of(workload, device, dtype, prepare):
    """Returns a function that trains a workload for one iteration, with one of :func:`methods`."""
    with chainer.using_config('dtype', dtype):
        model, arguments = workload.prepare()
    model.to_device(device)
    arguments = [device.send(array) for array in arguments]
    optimizer = prepare(chainer.optimizers.MomentumSGD(lr=1e-3), model)
    return lambda: optimizer.update(model, *arguments)
