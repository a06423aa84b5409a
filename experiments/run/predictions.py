"""What policies expect of each layer's gradient, beside what there is: ``predictions.csv``.

And what they would choose without their bounds: ``unbounded.csv``.
"""

import dataclasses
import math
import os

from chainerlp import functions, policies
from chainerlp.extensions import files
from chainerlp.extensions.layer_probe import LayerProbe
from chainerlp.policies.policy import Bounded, window_for
from experiments.reports.run_files import PREDICTIONS, UNBOUNDED, PredictionRow, UnboundedRow

import numpy
from chainer.backends import cuda
from chainer.training import extension


class Predictions(extension.Extension):
    """Trainer extension that writes which underflow policies predict, and which scales would do.

    Of layers whose policy has bounds, it writes which scales there would be without them, too. It
    changes nothing in the training. The predictions are those of
    :class:`~chainerlp.policies.Adaptive` and :class:`~chainerlp.policies.PerSample` at the scales
    that were applied, for the run's own format; see
    :class:`~experiments.reports.run_files.PredictionRow`. Layers that round the gradients of their
    outputs (``compute``) form no product from them, and are left out.

    Args:
        interval (int): Iterations between two measurements.
        threshold (float): T, the rate that is accepted.
    """

    default_name = 'Predictions'
    trigger = (1, 'iteration')
    priority = 2 * extension.PRIORITY_WRITER  # before those that run passes of their own

    THRESHOLD = policies.PerSample().threshold

    def __init__(self, interval, threshold=THRESHOLD):
        self._interval = interval
        self._threshold = threshold
        self._probe = None
        self._observation = None  # of the update that was written last
        self._started = set()

    def initialize(self, trainer):
        """Attaches the probe, which looks at the passes of measured iterations only."""
        updater = trainer.updater
        optimizer = updater.get_optimizer('main')

        def is_wanted():
            # Each update has a new observation; what runs before the next one is no update's pass.
            is_update = trainer.observation is not self._observation
            return is_update and (updater.iteration + 1) % self._interval == 0

        def measure(function, in_data, gy, _):
            if functions.computes_in(function) is not None:
                return None
            loss_scale = optimizer._loss_scale or 1.0
            gradient = functions.gradient_to_round(function, in_data, gy)
            scale, before = _scales_of(function, loss_scale)
            predicted = _predictions(function, gradient, scale, before, self._threshold)
            return predicted, _unbounded(function, gradient, scale, before)

        self._probe = LayerProbe({'main': optimizer.target}, measure, is_wanted)
        self._probe.__enter__()

    def __call__(self, trainer):
        """Writes what was measured in the update."""
        iteration = trainer.updater.iteration
        self._observation = trainer.observation
        found = [each for each in self._probe.take() if each[2] is not None]
        self._write(
            os.path.join(trainer.out, PREDICTIONS),
            [PredictionRow(iteration, path, call, *columns) for path, call, (columns, _) in found],
        )
        self._write(
            os.path.join(trainer.out, UNBOUNDED),
            [
                UnboundedRow(iteration, path, call, *columns)
                for path, call, (_, columns) in found
                if columns is not None
            ],
        )

    def _write(self, path, rows):
        if not rows:
            return
        if path not in self._started:
            files.start(path, rows[0].iteration, type(rows[0]))
            self._started.add(path)
        files.append(path, rows)

    def finalize(self):
        """Detaches the probe."""
        if self._probe is not None:
            self._probe.__exit__()


def _scales_of(function, loss_scale):
    """Returns α, and what gy carries."""
    scale = float(getattr(function, 'scale', 1.0))
    total_scale = getattr(function, 'total_scale', None)
    return scale, loss_scale if total_scale is None else float(total_scale) / scale


def _predictions(function, gradient, scale, before, threshold):
    """Returns the columns of a :class:`PredictionRow` from ``gaussian`` on."""
    format = functions.rounded_to(function)
    stored, W = cuda.to_cpu(gradient.gy), cuda.to_cpu(gradient.W)
    gaussian, per_sample = (
        policy(format=format.name) for policy in (policies.Adaptive, policies.PerSample)
    )
    terms, window = gradient.terms, gradient.window
    predicted = (
        gaussian.predicted_underflow(stored, W, scale, terms=terms),
        per_sample.predicted_underflow(stored, W, scale, terms=terms, window=window),
    )
    product = numpy.abs(cuda.to_cpu(gradient.product())).ravel()
    present = product[product > 0]
    lost = numpy.count_nonzero(present * scale <= format.underflow_threshold)
    # So many may be lost; the next larger one has to stay.
    accepted = math.floor(threshold * product.size)
    wanted = largest = math.nan
    if len(present) and numpy.isfinite(product).all():
        largest = 2.0 ** math.floor(math.log2(format.largest / float(present.max()))) * before
        if len(present) > accepted:
            smallest_kept = float(numpy.partition(present, accepted)[accepted])
            exact = format.underflow_threshold / smallest_kept
            wanted = 2.0 ** (math.floor(math.log2(exact)) + 1) * before
    return *predicted, lost / max(product.size, 1), wanted, largest


def _unbounded(function, gradient, scale, before):
    """Returns the columns of an :class:`UnboundedRow` from ``unbounded`` on; ``None`` without."""
    policy = getattr(getattr(function, 'layer_scale', None), 'policy', None)
    if not isinstance(policy, Bounded):
        return None
    free = dict(max_scale=math.inf, max_total_scale=math.inf, power_of_two=False)
    product = gradient.product() if policy.needs_product else None
    context = dict(terms=gradient.terms, product=product, **window_for(policy, gradient.window))
    unbounded = dataclasses.replace(policy, **free).scale(
        gradient.gy, gradient.W, before, **context
    )
    return float(unbounded), scale
