"""What ScaleReport costs: CPU time of a training with it and without it, in turns in one run."""

import dataclasses
import statistics
import tempfile
import time

import chainerlp
from experiments.models.cnn import SmallCNN
from experiments.models.mlp import MLP

import chainer
import numpy
from chainer import functions, links, optimizers, training

ITERATIONS = 500
_TRIGGER = (100, 'iteration')
_MODELS = {
    'mlp': (lambda: MLP(256, 128, 10, layers=6), (256,), 64),
    'cnn': (lambda: SmallCNN(1, 10, channels=(8, 16, 16)), (1, 12, 12), 16),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What measuring every 100th iteration adds to a training of 500.

    Attributes:
        model (str): The model.
        seconds (float): Shortest CPU time of a training without it.
        growth (float): By what fraction the shortest time with it is longer.
        median_growth (float): Median of the fractions in the pairs of trainings.
    """

    model: str
    seconds: float
    growth: float
    median_growth: float


def run(pairs, progress=lambda text: None):
    """Times pairs of trainings, one with ScaleReport and one without, in turns.

    Args:
        pairs (int): How many pairs of each model.
        progress (callable): Is told what is being done.

    Returns:
        list of Cost: One for each model.
    """
    costs = []
    for model in _MODELS:
        times = {True: [], False: []}
        for pair in range(pairs):
            progress(f'{model}: pair {pair + 1} of {pairs}')
            for with_report in (pair % 2 == 0, pair % 2 == 1):
                times[with_report].append(_train(model, with_report))
        growths = [w / wo - 1 for w, wo in zip(times[True], times[False])]
        shortest = min(times[False])
        growth = min(times[True]) / shortest - 1
        costs.append(Cost(model, shortest, growth, statistics.median(growths)))
    return costs


def render(costs):
    """Returns the costs as a table."""
    lines = [
        f'ScaleReport at {_TRIGGER} in a training of {ITERATIONS} iterations: CPU time',
        f'{"model":8} {"without, s":>11} {"growth of the shortest":>23} {"median growth":>14}',
    ]
    for cost in costs:
        lines.append(
            f'{cost.model:8} {cost.seconds:11.2f} {cost.growth:23.2%} {cost.median_growth:14.2%}'
        )
    return '\n'.join(lines)


def _train(model, with_report):
    build, shape, batch_size = _MODELS[model]
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        classifier = links.Classifier(build(), lossfun=functions.softmax_cross_entropy)
        x = numpy.random.standard_normal((512, *shape)).astype(chainer.get_dtype())
    t = numpy.random.randint(0, 10, len(x)).astype(numpy.int32)
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.MomentumSGD(lr=1e-3)).setup(classifier)
    data = chainer.datasets.TupleDataset(x, t)
    iterator = chainer.iterators.SerialIterator(data, batch_size)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.Trainer(updater, (ITERATIONS, 'iteration'), folder)
        if with_report:
            trainer.extend(chainerlp.extensions.ScaleReport(trigger=_TRIGGER))
        start = time.process_time()
        trainer.run()
        return time.process_time() - start
