"""What scaling costs: the time of a training iteration by method, side by side in one run."""

import dataclasses
import json
import os
import statistics
import time

import chainerlp
from chainerlp import policies
from chainerlp.extensions.replacing import replace_text
from experiments.models.cnn import SmallCNN
from experiments.models.mlp import MLP

import chainer
import numpy
from chainer import functions, links, optimizers

# Iterations are timed in turns, one of each method, so that what else the machine does meets all.
_UNTIMED = 1
_REFERENCE = 'fixed'


@dataclasses.dataclass(frozen=True)
class Row:
    """The times of one method.

    Attributes:
        method (str): The method.
        median (float): Median time of an iteration, in seconds.
        fastest (float): The shortest, in seconds.
        slowest (float): The longest, in seconds.
        ratio (float): Median of the ratios to static loss scaling in the same turn.
    """

    method: str
    median: float
    fastest: float
    slowest: float
    ratio: float


def _chainers(optimizer, model):
    optimizer.use_fp32_update()
    return optimizer.setup(model)


def _fixed(optimizer, model):
    # Chainer's own backward pass and static loss scaling, in the arithmetic of the scaled layers.
    chainerlp.convert(model, policies.Fixed(1))
    optimizer.loss_scaling(scale=128.0)
    return _chainers(optimizer, model)


def _wrapped(policy):
    return lambda optimizer, model: chainerlp.AdaptiveLossScaling(optimizer, policy).setup(model)


METHODS = {
    'fp32': (numpy.dtype('float32'), _chainers),
    'plain Chainer mixed16': (chainer.mixed16, _chainers),
    'fixed': (chainer.mixed16, _fixed),
    'adaptive, interval 1': (chainer.mixed16, _wrapped(policies.Adaptive(interval=1))),
    'adaptive, interval 10': (chainer.mixed16, _wrapped(policies.Adaptive(interval=10))),
    'adaptive, interval 100': (chainer.mixed16, _wrapped(policies.Adaptive(interval=100))),
    'amax': (chainer.mixed16, _wrapped(policies.Amax())),
    'measured': (chainer.mixed16, _wrapped(policies.Measured())),
}

# A model, the shape of an example, the batch size.
MODELS = {
    'cnn': (lambda: SmallCNN(3, 10), (3, 32, 32), 32),
    'mlp': (lambda: MLP(784, 512, 10, layers=6), (784,), 128),
}


def run(model, turns, progress=lambda text: None):
    """Times every method.

    Args:
        model (str): One of ``MODELS``.
        turns (int): How many iterations of each method are timed.
        progress (callable): Is told what is being done.

    Returns:
        list of Row: One for each of ``METHODS``.
    """
    steps = {}
    for name in METHODS:
        progress(f'preparing {name}')
        steps[name] = _step(model, *METHODS[name])
        for _ in range(_UNTIMED):
            steps[name]()
    times = {name: [] for name in METHODS}
    for turn in range(turns):
        progress(f'turn {turn + 1} of {turns}')
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return [_row(name, times[name], times[_REFERENCE]) for name in METHODS]


def render(model, rows):
    """Returns the rows as a table, with the batch that was timed."""
    _, shape, batch_size = MODELS[model]
    size = '×'.join(map(str, shape))
    lines = [
        f'{model}, batch {batch_size} of {size}: time of a training iteration on the CPU',
        f'{"method":24} {"median ms":>10} {"range ms":>17} {"to fixed":>9}',
    ]
    for row in rows:
        spread = f'{row.fastest * 1e3:.1f}–{row.slowest * 1e3:.1f}'
        lines.append(f'{row.method:24} {row.median * 1e3:10.1f} {spread:>17} {row.ratio:9.2f}')
    return '\n'.join(lines)


def save(path, model, rows):
    """Writes the rows as json."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    content = {'model': model, 'rows': [dataclasses.asdict(row) for row in rows]}
    replace_text(path, json.dumps(content, indent=2))


def _step(model, dtype, prepare):
    build, shape, batch_size = MODELS[model]
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        classifier = links.Classifier(build(), lossfun=functions.softmax_cross_entropy)
        x = numpy.random.standard_normal((batch_size, *shape)).astype(chainer.get_dtype())
    t = numpy.random.randint(0, 10, batch_size).astype(numpy.int32)
    optimizer = prepare(optimizers.MomentumSGD(lr=1e-3), classifier)
    return lambda: optimizer.update(classifier, x, t)


def _row(name, times, reference):
    ratios = [time / other for time, other in zip(times, reference)]
    return Row(name, statistics.median(times), min(times), max(times), statistics.median(ratios))
