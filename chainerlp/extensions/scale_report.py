"""Trainer extension that logs each layer's scale and underflow rate."""

import dataclasses
import fnmatch
import os
import warnings

from chainerlp.extensions import histogram_file, scales_file
from chainerlp.extensions.ahead import TrainerAhead
from chainerlp.extensions.measurement import Measurement, measure
from chainerlp.extensions.probe import Probe

import chainer
from chainer import training
from chainer.training import extension


class ScaleReport(extension.Extension):
    """Trainer extension that logs each layer's scale and underflow rate.

    At its trigger it measures, exactly, what rounding each layer's data gradient to float16 loses,
    appends one line a layer to a csv file in the trainer's output folder, and reports:

    - ``scaling/underflow``, ``scaling/underflow_unscaled``: mean over the layers,
    - ``scaling/scale_min``, ``scaling/scale_max``: extremes of the layers' own scales,
    - ``scaling/total_scale_max``: the largest total scale,
    - ``scaling/skipped``: updates skipped so far because of non-finite gradients,
    - ``scaling/backoff``: what gradients are multiplied by at present because of overflows, if the
      optimizer is wrapped (:class:`~chainerlp.overflow.Recovery`).

    Under ChainerMN each worker reports of its own data, and the first one writes the files.

    It works on any trainer, whether or not its optimizer is wrapped, and changes nothing in the
    training. Without :class:`~chainerlp.AdaptiveLossScaling` a layer's scale is 1 and its total
    scale Chainer's loss scale; in float32 training the underflow is what float16 would have lost.
    Only the iterations at the trigger are measured; each takes about one more product a layer.
    Layers whose input wants no gradient (usually the first) have nothing to measure.

    The file's columns are ``iteration, layer, call, scale, total_scale, underflow,
    underflow_unscaled, overflow, absmax``, as :class:`~chainerlp.extensions.Measurement` describes
    them. A resumed training continues the file, without its lines from beyond the snapshot.

    With ``histogram=True`` there is a second file, ``histogram.npz``: for each of these lines the
    counts of log2|gx| from 2^-40 to 2^16, with zeros, what lies below and above, and NaNs apart.
    gx is what is about to be rounded and stored, that is, ``total_scale`` times the true gradient,
    in float32: divide by ``total_scale``, which is in the file too, for the true one. Its arrays
    are described in :func:`chainerlp.extensions.histogram_file.write`.

    Args:
        filename (str): Name of the csv file.
        trigger: When to measure and report: a trigger, or a pair such as ``(100, 'iteration')``.
            Give it here, not to ``trainer.extend``: the extension has to be called at every
            iteration, since it has to know before an update whether to measure it.
        layers (list of str): Paths of the layers to measure, or patterns such as ``'/res*/conv1'``;
            all by default.
        histogram (bool): Whether to write ``histogram.npz``.
    """

    default_name = 'ScaleReport'
    priority = extension.PRIORITY_WRITER
    trigger = (1, 'iteration')

    def __init__(
        self, filename='scales.csv', trigger=(100, 'iteration'), layers=None, histogram=False
    ):
        self._filename = filename
        self._report_trigger = training.get_trigger(trigger)
        self._layers = None if layers is None else [layers] if isinstance(layers, str) else layers
        self._with_histogram = histogram
        self._histograms = None  # all that the file has, once it has been read
        self._probe = None
        # A trigger is asked once for each iteration, mostly ahead of it, and its answer kept: its
        # state, which snapshots save, is that of having been asked.
        self._asked_for = 0
        self._answer = False
        self._skipped_by_chainer = 0
        self._has_started = False
        self._has_warned = False

    def initialize(self, trainer):
        """Attaches the probe before the first update."""
        if self._layers is not None:
            self._check_layers(trainer)
        # Whether the first update is wanted is asked during it: a snapshot may be loaded yet.
        self._attach(trainer, lambda: self._is_wanted(TrainerAhead(trainer, in_update=True)))

    def __call__(self, trainer):
        """Writes what was measured, and attaches the probe if the next update is wanted."""
        self._count_skipped(trainer)
        seen = self._detach()
        if seen:
            self._report(trainer, seen)
        elif not self._has_warned and self._is_wanted(trainer):
            self._has_warned = True
            self._warn_of_nothing(trainer)
        if self._is_wanted(TrainerAhead(trainer)):
            self._attach(trainer)

    def finalize(self):
        """Detaches the probe."""
        self._detach()

    def serialize(self, serializer):
        """Saves or loads the state: the trigger's, its answer, and the count of skipped updates."""
        if hasattr(self._report_trigger, 'serialize'):
            self._report_trigger.serialize(serializer['_report_trigger'])
        self._asked_for = int(serializer('_asked_for', self._asked_for))
        self._answer = bool(serializer('_answer', self._answer))
        self._skipped_by_chainer = serializer('_skipped_by_chainer', self._skipped_by_chainer)

    def _is_wanted(self, trainer):
        iteration = trainer.updater.iteration
        if self._asked_for != iteration:
            self._asked_for = iteration
            self._answer = bool(self._report_trigger(trainer))
        return self._answer

    def _attach(self, trainer, is_wanted=lambda: True):
        optimizers = trainer.updater.get_all_optimizers()
        models = {name: optimizer.target for name, optimizer in optimizers.items()}

        def look(function, in_data, gy, name):
            loss_scale = getattr(optimizers.get(name), '_loss_scale', None) or 1.0
            return measure(function, in_data, gy, loss_scale, self._with_histogram)

        self._probe = Probe(models, look, is_wanted, self._matches)
        self._probe.__enter__()

    def _detach(self):
        if self._probe is None:
            return []
        probe, self._probe = self._probe, None
        probe.__exit__(None, None, None)
        return probe.seen()

    def _matches(self, path):
        return self._layers is None or any(
            fnmatch.fnmatchcase(path, pattern) for pattern in self._layers
        )

    def _check_layers(self, trainer):
        optimizers = trainer.updater.get_all_optimizers()
        prefixes = {name: '' if len(optimizers) == 1 else f'/{name}' for name in optimizers}
        paths = [
            prefixes[name] + path
            for name, optimizer in optimizers.items()
            for path, _ in optimizer.target.namedlinks()
        ]
        for pattern in self._layers:
            if not fnmatch.filter(paths, pattern):
                raise ValueError(
                    f'ScaleReport: no layer matches {pattern!r}; the paths are {", ".join(paths)}'
                )

    def _warn_of_nothing(self, trainer):
        optimizers = trainer.updater.get_all_optimizers().values()
        models = ', '.join(type(optimizer.target).__name__ for optimizer in optimizers)
        among = '' if self._layers is None else f' among {self._layers}'
        warnings.warn(
            f'ScaleReport: {models} has no layer{among} that passes a gradient on to its input;'
            f' nothing is written to {self._filename}',
            RuntimeWarning,
            stacklevel=3,
        )

    def _count_skipped(self, trainer):
        for optimizer in _optimizers(trainer):
            # Under ChainerMN the first update only distributes parameters, and sets no flag.
            has_overflowed = getattr(optimizer, '_loss_scaling_isnan', False)
            if optimizer._loss_scaling_is_dynamic and has_overflowed:
                self._skipped_by_chainer += 1

    def _summary(self, trainer, measurements):
        skipped = self._skipped_by_chainer + sum(
            getattr(optimizer, 'skipped', 0) for optimizer in _optimizers(trainer)
        )
        count = len(measurements)
        summary = {
            'scaling/underflow': sum(m.underflow for m in measurements) / count,
            'scaling/underflow_unscaled': sum(m.underflow_unscaled for m in measurements) / count,
            'scaling/scale_min': min(m.scale for m in measurements),
            'scaling/scale_max': max(m.scale for m in measurements),
            'scaling/total_scale_max': max(m.total_scale for m in measurements),
            'scaling/skipped': skipped,
        }
        recoveries = [getattr(optimizer, 'recovery', None) for optimizer in _optimizers(trainer)]
        if any(recoveries):
            summary['scaling/backoff'] = min(r.backoff for r in recoveries if r is not None)
        return summary

    def _report(self, trainer, seen):
        # The only place that waits for the device.
        measurements = [
            Measurement(path, call, *map(float, values)) for path, call, (values, _) in seen
        ]
        self._try_to_write(self._write_scales, trainer, self._filename, measurements)
        if self._with_histogram:
            counts = [chainer.backends.cuda.to_cpu(counts) for _, _, (_, counts) in seen]
            self._try_to_write(
                self._write_histogram, trainer, 'histogram.npz', measurements, counts
            )
        chainer.report(self._summary(trainer, measurements))

    def _try_to_write(self, write, trainer, filename, *values):
        if not _is_first_worker(trainer):
            return
        path = os.path.join(trainer.out, filename)
        iteration = trainer.updater.iteration
        try:
            write(path, iteration, *values)
        except OSError as error:
            warnings.warn(
                f'ScaleReport: iteration {iteration} is missing in {path}: {error.strerror}',
                RuntimeWarning,
                stacklevel=4,
            )

    def _write_scales(self, path, iteration, measurements):
        if not self._has_started or not os.path.exists(path):
            scales_file.start(path, iteration)
            self._has_started = True
        rows = [scales_file.Row(iteration, *dataclasses.astuple(m)) for m in measurements]
        scales_file.append(path, rows)

    def _write_histogram(self, path, iteration, measurements, counts):
        new = histogram_file.of_counts(
            iteration,
            [m.layer for m in measurements],
            [m.call for m in measurements],
            [m.total_scale for m in measurements],
            counts,
        )
        old = self._histograms
        if old is None and os.path.exists(path):
            old = histogram_file.read(path)
            old = old.where(old.iteration < iteration)
        new = new if old is None else old + new
        histogram_file.write(path, new)
        self._histograms = new


def _optimizers(trainer):
    return list(trainer.updater.get_all_optimizers().values())


def _is_first_worker(trainer):
    communicators = [getattr(optimizer, 'communicator', None) for optimizer in _optimizers(trainer)]
    return all(communicator is None or communicator.rank == 0 for communicator in communicators)
