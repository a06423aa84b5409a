"""What ScaleReport costs: a training with it and one without, iteration by iteration in turns.

Each training has a thread of its own, and only one of them runs at a time: after each iteration it
hands over to the other. What else the machine does meets both alike, and what is timed is the CPU
time of the thread, in which waiting does not count.
"""

import dataclasses
import statistics
import tempfile
import threading
import time

import chainerlp
from experiments.models.small_models import MLP, SmallCNN

import chainer
import numpy
from chainer import functions, links, optimizers, training

ITERATIONS = 500
INTERVAL = 100
_MODELS = {
    'mlp': (lambda: MLP(256, 128, 10, layers=6), (256,), 64),
    'cnn': (lambda: SmallCNN(1, 10, channels=(8, 16, 16)), (1, 12, 12), 16),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What measuring every so many iterations adds to the training of a model.

    Attributes:
        iteration (float): Median CPU time of an iteration without ScaleReport, in seconds.
        growth (float): By what fraction the CPU time of the whole training is longer with it:
            median of the pairs of trainings.
        idle (float): By what fraction the median iteration that is not measured is longer.
        measured (float): How many iterations a measured one is as long as, the median.
    """

    model: str
    iteration: float
    growth: float
    idle: float
    measured: float


def run(pairs, progress):
    """Returns the :class:`Cost` of each model, by pairs of trainings: with ScaleReport and without.

    ``progress`` is told in words what is being done.
    """
    costs = []
    for model in _MODELS:
        timed = []
        for pair in range(pairs):
            progress(f'{model}: pair {pair + 1} of {pairs}')
            timed.append(_pair(model, reporting_first=pair % 2 == 0))
        costs.append(_cost(model, timed))
    return costs


def render(costs):
    """Returns the costs as a table."""
    lines = [
        f'ScaleReport every {INTERVAL} of {ITERATIONS} iterations: CPU time',
        f'{"model":8} {"iteration ms":>13} {"growth":>8} {"idle":>8} {"a measured one":>15}',
    ]
    for cost in costs:
        lines.append(
            f'{cost.model:8} {cost.iteration * 1e3:13.2f} {cost.growth:8.2%} {cost.idle:8.2%}'
            f' {cost.measured:12.2f} it.'
        )
    return '\n'.join(lines)


def _cost(model, timed):
    plain = numpy.median([times for times, _ in timed])
    reporting = numpy.array([times for _, times in timed])
    is_measured = numpy.arange(1, ITERATIONS + 1) % INTERVAL == 0
    return Cost(
        model,
        iteration=float(plain),
        growth=statistics.median(sum(times) / sum(without) - 1 for without, times in timed),
        idle=float(numpy.median(reporting[:, ~is_measured]) / plain - 1),
        measured=float(numpy.median(reporting[:, is_measured]) / plain),
    )


def _pair(model, reporting_first):
    """Returns the iterations' times of a training without ScaleReport and of one with it."""
    with tempfile.TemporaryDirectory() as folder:
        trainings = without, reporting = _Training(model, folder), _Training(model, folder)
        reporting.trainer.extend(chainerlp.extensions.ScaleReport(trigger=(INTERVAL, 'iteration')))
        first, second = trainings[::-1] if reporting_first else trainings
        first.other, second.other = second, first
        for each in trainings:
            each.start()
        first.turn.release()
        for each in trainings:
            each.join()
    for each in trainings:
        if each.error is not None:
            raise each.error
    return without.times, reporting.times


class _Training(threading.Thread):
    """A training that stops after each iteration until it is its turn again."""

    def __init__(self, model, folder):
        super().__init__(daemon=True)
        self.trainer = _trainer(model, folder)
        self.turn = threading.Semaphore(0)
        self.other = None
        self.times = []
        self.error = None
        self.is_over = False
        last_of_all = -(10**6)
        self.trainer.extend(lambda trainer: self._hand_over(), 'hand_over', priority=last_of_all)

    def run(self):
        self.turn.acquire()
        try:
            self._began = time.thread_time()
            self.trainer.run(show_loop_exception_msg=False)
        except Exception as error:  # raised again where the pair was begun
            self.error = error
        self.is_over = True
        self.other.turn.release()

    def _hand_over(self):
        self.times.append(time.thread_time() - self._began)
        self.other.turn.release()
        if not self.other.is_over:
            self.turn.acquire()
        self._began = time.thread_time()


def _trainer(model, folder):
    build, shape, batch_size = _MODELS[model]
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        classifier = links.Classifier(build(), lossfun=functions.softmax_cross_entropy)
        x = numpy.random.standard_normal((512, *shape)).astype(chainer.get_dtype())
    t = numpy.random.randint(0, 10, len(x)).astype(numpy.int32)
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.MomentumSGD(lr=1e-3)).setup(classifier)
    data = chainer.datasets.TupleDataset(x, t)
    updater = training.updaters.StandardUpdater(
        chainer.iterators.SerialIterator(data, batch_size), optimizer
    )
    return training.Trainer(updater, (ITERATIONS, 'iteration'), folder)
