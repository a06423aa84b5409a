"""Many ways of scaling on the same weights, batches and draws: ``comparison.csv``."""

import os
import typing

import chainerlp
from chainerlp import policies
from chainerlp.extensions import files
from chainerlp.extensions.gradient_error import batch_of
from experiments.reports.run_files import COMPARISON, ComparisonRow
from experiments.run.optimizers import POLICIES

from chainer.training import extension

FORMATS = ('float16', 'float8_e5m2', 'float8_e4m3')
FIXED_SCALES = tuple(2.0**exponent for exponent in range(0, 25, 3))


class Way(typing.NamedTuple):
    """A way of scaling: its name, its policy, and what the gradient of the loss is multiplied by.

    ``scale`` is that of a fixed one.
    """

    name: str
    policy: policies.Policy
    scale: typing.Optional[float] = None


def ways():
    """Returns the fixed scales and, without bounds, the policies."""
    unbounded = dict(max_scale=float('inf'), max_total_scale=float('inf'))
    chosen = {name: policy(**unbounded) for name, policy in POLICIES.items()}
    chosen['adaptive-product'] = policies.Adaptive(**unbounded, variance='product')
    fixed = [Way('fixed', policies.Fixed(1), scale) for scale in FIXED_SCALES]
    return [*fixed, *(Way(name, policy) for name, policy in chosen.items())]


class Comparison(extension.Extension):
    """Trainer extension that compares the gradient errors of many ways of scaling.

    It changes nothing in the training, which has to be in float32: all ways are measured on its
    weights and on the same batch, so that they differ in nothing else, and only what layers pass
    down is rounded, to each of the :data:`FORMATS`. The batch is the one of
    :class:`~chainerlp.extensions.GradientError`.

    Args:
        interval (int): Iterations between two comparisons.
    """

    default_name = 'Comparison'
    priority = extension.PRIORITY_WRITER

    def __init__(self, interval):
        self.trigger = interval, 'iteration'
        self._has_started = False

    def __call__(self, trainer):
        """Compares and writes."""
        updater = trainer.updater
        model = updater.get_optimizer('main').target
        batch = batch_of(updater)
        rows = []
        for format in FORMATS:
            for way in ways():
                errors = chainerlp.gradient_error(
                    model,
                    model,
                    *batch,
                    policy=way.policy,
                    initial_scale=way.scale or 1.0,
                    gradient_format=format,
                    show=False,
                )
                scale = float('nan') if way.scale is None else way.scale
                found = errors.median, errors.worst
                rows.append(ComparisonRow(updater.iteration, way.name, format, scale, *found))
        path = os.path.join(trainer.out, COMPARISON)
        if not self._has_started:
            files.start(path, updater.iteration, ComparisonRow)
            self._has_started = True
        files.append(path, rows)
