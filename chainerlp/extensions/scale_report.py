"""Trainer extension that logs each layer's scale and underflow rate."""

import contextlib
import fnmatch
import os
import warnings
from collections.abc import Sequence
from typing import Any, Union

from chainerlp.compat.patching import Overlay
from chainerlp.extensions import files
from chainerlp.extensions.layer_probe import LayerProbe, measure_layer, named_links
from chainerlp.types import Trigger

import chainer
import numpy
from chainer import training
from chainer.training import extension


class ScaleReport(extension.Extension):
    """Trainer extension that logs each layer's scale and underflow rate.

    At its trigger it measures, exactly, what rounding each layer's data gradient to float16 loses,
    appends one row a layer to a csv file in the trainer's output folder, and reports:

    - ``scaling/underflow``, ``scaling/underflow_unscaled``: mean over the layers,
    - ``scaling/scale_min``, ``scaling/scale_max``: extremes of the layers' own scales,
    - ``scaling/total_scale_max``: the largest total scale,
    - ``scaling/skipped``: updates skipped so far because of non-finite gradients,
    - ``scaling/saturated``: elements of x, W and gy that have been beyond the wrapped optimizer's
      ``compute_dtype`` so far, if it has one,
    - ``scaling/backoff``: what gradients are multiplied by at present because of overflows, if the
      optimizer is wrapped (:class:`~chainerlp.overflow.Recovery`).

    Chainer's ``LogReport`` takes means of these between two entries, of extremes and counts, too:
    with the trigger of this extension an entry has what was reported.

    It works on any trainer, whether or not its optimizer is wrapped, and changes nothing in the
    training. Without :class:`~chainerlp.AdaptiveLossScaling` a layer's scale is 1 and its total
    scale Chainer's loss scale; in float32 training the underflow is what float16 would have lost.
    An iteration at the trigger takes about one more product a layer. Layers whose input wants no
    gradient (usually the first) are left out. With a ``compute_dtype`` it measures all layers, and
    in place of gx the gradient of the output, gy, which is what they round. Under ChainerMN each
    worker reports its own data's values, and the first one writes the files.

    The file's columns are ``iteration, layer, call, scale, total_scale, underflow,
    underflow_unscaled, overflow, absmax``, as :class:`~chainerlp.extensions.files.Row`
    describes them. A resumed training continues the file, without its rows from after the snapshot.

    With ``histogram=True`` there is a second file, ``histogram.npz``: for each of these rows the
    counts of log2|gx| from 2^-40 to 2^16, where gx is what is about to be rounded and stored, in
    float32. :func:`chainerlp.extensions.files.write_histograms` describes the file's arrays.

    Args:
        filename (str): Name of the csv file.
        trigger: When to measure and report: a trigger, or a pair such as ``(100, 'iteration')``.
            Give it here, not to ``trainer.extend``: it is asked in each update, at the beginning
            of the backward pass, and the extension is called after each update.
        layers (list of str): Paths of the layers to measure, or patterns such as ``'/res*/conv1'``;
            all by default.
        histogram (bool): Whether to write ``histogram.npz``.
    """

    default_name = 'ScaleReport'
    priority = extension.PRIORITY_WRITER
    trigger = (1, 'iteration')

    def __init__(
        self,
        filename: str = 'scales.csv',
        trigger: Trigger = (100, 'iteration'),
        layers: Union[Sequence[str], str, None] = None,
        histogram: bool = False,
    ) -> None:
        self._filename = filename
        self._report_trigger = training.get_trigger(trigger)
        self._layers = [layers] if isinstance(layers, str) else layers
        self._with_histogram = histogram
        self._histograms = None  # all that the file has, once it has been read
        self._probe: Any = None
        self._attached = contextlib.ExitStack()  # holds the probe while it is attached
        # A trigger has a state, which snapshots save: it is asked once for each iteration.
        self._asked_for = 0
        self._answer = False
        self._observation = None  # that of the iteration for which it was asked
        self._skipped_by_chainer = 0
        self._has_started = False
        self._has_warned = False

    def initialize(self, trainer: training.Trainer) -> None:
        """Attaches the probe before the first update."""
        optimizers = trainer.updater.get_all_optimizers()
        models = {name: optimizer.target for name, optimizer in optimizers.items()}
        if self._layers is not None:
            self._check_layers(models)

        def measure(function, in_data, gy, name):
            loss_scale = getattr(optimizers.get(name), '_loss_scale', None) or 1.0
            return measure_layer(function, in_data, gy, loss_scale, self._with_histogram)

        self._probe = LayerProbe(
            models, measure, lambda: self._is_wanted_in_update(trainer), self._matches
        )
        # Always for the first update: a snapshot may still be loaded.
        self._attached.enter_context(self._probe)

    def __call__(self, trainer: training.Trainer) -> None:
        """Writes and reports what was measured in the update."""
        self._count_skipped(trainer)
        self._observation = trainer.observation
        is_wanted = self._is_wanted(trainer)
        measured = self._probe.take()
        if measured:
            self._report(trainer, measured)
        elif is_wanted and not self._has_warned:
            self._has_warned = True
            self._warn_of_nothing(trainer)
        self._attached.close()
        if self._may_be_wanted_next(trainer):
            self._attached.enter_context(self._probe)

    def finalize(self) -> None:
        """Detaches the probe."""
        self._attached.close()

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or loads the state: the trigger's, its answer, and the count of skipped updates."""
        if hasattr(self._report_trigger, 'serialize'):
            self._report_trigger.serialize(serializer['_report_trigger'])
        self._asked_for = int(serializer('_asked_for', self._asked_for))
        self._answer = bool(serializer('_answer', self._answer))
        self._skipped_by_chainer = serializer('_skipped_by_chainer', self._skipped_by_chainer)

    def _is_wanted(self, trainer):
        """Returns the trigger's answer for an iteration; asks it if that was not done before."""
        iteration = trainer.updater.iteration
        if self._asked_for != iteration:
            self._asked_for = iteration
            self._answer = bool(self._report_trigger(trainer))
        return self._answer

    def _is_wanted_in_update(self, trainer):
        """Returns whether a backward pass is that of an update which is to be measured."""
        iteration = trainer.updater.iteration + 1  # the updater counts it after the update
        # The trainer begins each update with a new observation. By its first backward pass the
        # iterator has been asked for the batch, so that epochs are already those of this iteration.
        if trainer.observation is not self._observation:
            self._observation = trainer.observation
            updater = Overlay(trainer.updater, iteration=iteration)
            self._is_wanted(Overlay(trainer, updater=updater))
        # Extensions may run backward passes, too, between the updates: they are not measured.
        return self._answer and self._asked_for == iteration

    def _may_be_wanted_next(self, trainer):
        """Returns whether the next update may have to be measured, so that the probe is needed."""
        trigger = self._report_trigger
        if type(trigger) is training.triggers.IntervalTrigger and trigger.unit == 'iteration':
            iteration = trainer.updater.iteration
            return iteration // trigger.period != (iteration + 1) // trigger.period
        return True  # that is known only when the batch has been drawn

    def _matches(self, path):
        return self._layers is None or any(
            fnmatch.fnmatchcase(path, pattern) for pattern in self._layers
        )

    def _check_layers(self, models):
        paths = [path for path, _, _ in named_links(models)]
        for pattern in self._layers:
            if not fnmatch.filter(paths, pattern):
                raise ValueError(
                    f'ScaleReport: no layer matches {pattern!r}; the paths are {", ".join(paths)}'
                )

    def _warn_of_nothing(self, trainer):
        models = ', '.join(type(optimizer.target).__name__ for optimizer in _optimizers(trainer))
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

    def _report(self, trainer, measured):
        iteration = trainer.updater.iteration
        # The only place that waits for the device.
        rows = [
            files.Row(iteration, path, call, *map(float, values))
            for path, call, (values, _) in measured
        ]
        self._try_to_write(self._write_scales, trainer, self._filename, rows)
        if self._with_histogram:
            counts = [chainer.backends.cuda.to_cpu(counts) for _, _, (_, counts) in measured]
            self._try_to_write(self._write_histogram, trainer, 'histogram.npz', rows, counts)
        chainer.report(self._summary(trainer, rows))

    def _summary(self, trainer, rows):
        optimizers = _optimizers(trainer)
        skipped = sum(getattr(optimizer, 'skipped', 0) for optimizer in optimizers)
        summary = {
            'scaling/underflow': sum(row.underflow for row in rows) / len(rows),
            'scaling/underflow_unscaled': sum(row.underflow_unscaled for row in rows) / len(rows),
            'scaling/scale_min': min(row.scale for row in rows),
            'scaling/scale_max': max(row.scale for row in rows),
            'scaling/total_scale_max': max(row.total_scale for row in rows),
            'scaling/skipped': self._skipped_by_chainer + skipped,
        }
        computing = [each for each in optimizers if getattr(each, 'compute_dtype', None)]
        if computing:
            summary['scaling/saturated'] = sum(optimizer.saturated for optimizer in computing)
        recoveries = [each.recovery for each in optimizers if hasattr(each, 'recovery')]
        if recoveries:
            summary['scaling/backoff'] = min(recovery.backoff for recovery in recoveries)
        return summary

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

    def _write_scales(self, path, iteration, rows):
        if not self._has_started or not os.path.exists(path):
            files.start(path, iteration)
            self._has_started = True
        files.append(path, rows)

    def _write_histogram(self, path, iteration, rows, counts):
        histograms = files.histograms_of(rows, counts)
        old = self._histograms
        if old is None and os.path.exists(path):
            old = files.read_histograms(path)
            old = old[old['iteration'] < iteration]
        if old is not None:
            histograms = numpy.concatenate([old, histograms])
        files.write_histograms(path, histograms)
        self._histograms = histograms


def _optimizers(trainer):
    return list(trainer.updater.get_all_optimizers().values())


def _is_first_worker(trainer):
    communicators = [getattr(optimizer, 'communicator', None) for optimizer in _optimizers(trainer)]
    return all(communicator is None or communicator.rank == 0 for communicator in communicators)
