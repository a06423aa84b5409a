"""Trainer extension that logs each layer's scale and underflow rate."""

import csv
import dataclasses
import fnmatch
import os
import warnings

from chainerlp.extensions.ahead import TrainerAhead
from chainerlp.extensions.probe import Measurement, Probe

import chainer
from chainer import training
from chainer.training import extension

COLUMNS = ('iteration',) + tuple(field.name for field in dataclasses.fields(Measurement))


class ScaleReport(extension.Extension):
    """Trainer extension that logs each layer's scale and underflow rate.

    At its trigger it measures, exactly, what rounding each layer's data gradient to float16 loses,
    appends one line a layer to a csv file in the trainer's output folder, and reports:

    - ``scaling/underflow``, ``scaling/underflow_unscaled``: mean over the layers,
    - ``scaling/scale_min``, ``scaling/scale_max``: extremes of the layers' own scales,
    - ``scaling/total_scale_max``: the largest total scale,
    - ``scaling/skipped``: updates skipped so far because of non-finite gradients.

    It works on any trainer, whether or not its optimizer is wrapped, and changes nothing in the
    training. Without :class:`~chainerlp.AdaptiveLossScaling` a layer's scale is 1 and its total
    scale Chainer's loss scale; in float32 training the underflow is what float16 would have lost.
    Only the iterations at the trigger are measured; each takes about one more product a layer.
    Layers whose input wants no gradient (usually the first) have nothing to measure.

    The file's columns are ``iteration, layer, call, scale, total_scale, underflow,
    underflow_unscaled, overflow, absmax``, as :class:`~chainerlp.extensions.Measurement` describes
    them. A resumed training continues the file, without its lines from beyond the snapshot.

    Args:
        filename (str): Name of the csv file.
        trigger: When to measure and report: a trigger, or a pair such as ``(100, 'iteration')``.
            Give it here, not to ``trainer.extend``: the extension has to be called at every
            iteration, since it has to know before an update whether to measure it.
        layers (list of str): Paths of the layers to measure, or patterns such as ``'/res*/conv1'``;
            all by default.
    """

    default_name = 'ScaleReport'
    priority = extension.PRIORITY_WRITER
    trigger = (1, 'iteration')

    def __init__(self, filename='scales.csv', trigger=(100, 'iteration'), layers=None):
        self._filename = filename
        self._report_trigger = training.get_trigger(trigger)
        self._layers = None if layers is None else [layers] if isinstance(layers, str) else layers
        self._probe = None
        self._skipped_by_chainer = 0
        self._has_written = False

    def initialize(self, trainer):
        """Attaches the probe before the first update."""
        if self._layers is not None:
            self._check_layers(trainer)
        # Whether the first update is wanted is asked during it: a snapshot may be loaded yet.
        self._attach(trainer, lambda: self._report_trigger(TrainerAhead(trainer, in_update=True)))

    def __call__(self, trainer):
        """Writes what was measured, and attaches the probe if the next update is wanted."""
        self._count_skipped(trainer)
        measurements = self._detach()
        if measurements:
            self._write(trainer, measurements)
            chainer.report(self._summary(trainer, measurements))
        if self._report_trigger(TrainerAhead(trainer)):
            self._attach(trainer)

    def finalize(self):
        """Detaches the probe."""
        self._detach()

    def serialize(self, serializer):
        """Saves or loads the state: the trigger's, and the count of skipped updates."""
        if hasattr(self._report_trigger, 'serialize'):
            self._report_trigger.serialize(serializer['_report_trigger'])
        self._skipped_by_chainer = serializer('_skipped_by_chainer', self._skipped_by_chainer)

    def _attach(self, trainer, is_wanted=lambda: True):
        optimizers = trainer.updater.get_all_optimizers()
        self._probe = Probe(optimizers, is_wanted, self._matches)
        self._probe.__enter__()

    def _detach(self):
        if self._probe is None:
            return []
        probe, self._probe = self._probe, None
        probe.__exit__(None, None, None)
        return probe.measurements()

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

    def _count_skipped(self, trainer):
        for optimizer in trainer.updater.get_all_optimizers().values():
            if optimizer._loss_scaling_is_dynamic and optimizer._loss_scaling_isnan:
                self._skipped_by_chainer += 1

    def _summary(self, trainer, measurements):
        skipped = self._skipped_by_chainer + sum(
            getattr(optimizer, 'skipped', 0)
            for optimizer in trainer.updater.get_all_optimizers().values()
        )
        count = len(measurements)
        return {
            'scaling/underflow': sum(m.underflow for m in measurements) / count,
            'scaling/underflow_unscaled': sum(m.underflow_unscaled for m in measurements) / count,
            'scaling/scale_min': min(m.scale for m in measurements),
            'scaling/scale_max': max(m.scale for m in measurements),
            'scaling/total_scale_max': max(m.total_scale for m in measurements),
            'scaling/skipped': skipped,
        }

    def _write(self, trainer, measurements):
        path = os.path.join(trainer.out, self._filename)
        iteration = trainer.updater.iteration
        rows = [(iteration, *dataclasses.astuple(m)) for m in measurements]
        try:
            if not self._has_written:
                _keep_rows_before(path, iteration)
            with open(path, 'a', newline='') as file:
                csv.writer(file).writerows(rows)
            self._has_written = True
        except OSError as error:
            warnings.warn(
                f'ScaleReport: iteration {iteration} is missing in {path}: {error.strerror}',
                RuntimeWarning,
                stacklevel=2,
            )


def _keep_rows_before(path, iteration):
    """Leaves a header and the rows before an iteration: a new training's, or a resumed one's."""
    rows = []
    if os.path.exists(path):
        with open(path, newline='') as file:
            rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS)]
        rows = [row for row in rows[1:] if row[0].isdigit() and int(row[0]) < iteration]
    with open(path + '.new', 'w', newline='') as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    os.replace(path + '.new', path)
