"""Trainer extension that draws what ScaleReport wrote."""

import os
import warnings
from typing import Optional

from chainerlp.extensions import files

from chainer import training
from chainer.training import extension


class PlotScales(extension.Extension):
    """Trainer extension that draws the layers' scales and underflow rates over the training.

    At its trigger it reads what :class:`~chainerlp.extensions.ScaleReport` has written, so that a
    resumed training is drawn as a whole, and replaces these pictures in the trainer's folder:

    - ``scales.png``: log2 of the total scales, layers by iterations,
    - ``underflow.png``: the underflow rates, layers by iterations, with T marked,
    - ``layers.png``: the newest iteration, layer by layer: scale and total scale, underflow with
      and without scaling,
    - ``histogram.png``: the newest histograms of log2|gx|, if there is a ``histogram.npz``.

    It needs matplotlib, and no display. An error in drawing or writing a picture is a warning, and
    the training goes on.

    Args:
        filename (str): Name of the csv file that ScaleReport writes.
        threshold (float): T. By default that of the optimizer's policy; where it has none, none is
            marked.

    Raises:
        ImportError: If matplotlib is not there.
    """

    default_name = 'PlotScales'
    priority = extension.PRIORITY_READER
    trigger = (1, 'epoch')

    def __init__(self, filename: str = 'scales.csv', threshold: Optional[float] = None) -> None:
        try:
            from chainerlp.extensions import pictures
        except ImportError as error:
            raise ImportError(
                f"PlotScales needs matplotlib ({error}): pip install 'matplotlib>=3.9,<4'"
            ) from None
        self._pictures = pictures
        self._filename = filename
        self._threshold = threshold

    def __call__(self, trainer: training.Trainer) -> None:
        """Draws the pictures."""
        threshold = self._threshold or _threshold_of(trainer)
        draw = self._pictures
        rows = self._read(files.read, trainer, self._filename)
        if rows:
            self._save(trainer, 'scales.png', draw.scales, rows)
            self._save(trainer, 'underflow.png', draw.underflow, rows, threshold)
            self._save(trainer, 'layers.png', draw.layers, rows, threshold)
        if os.path.exists(os.path.join(trainer.out, 'histogram.npz')):
            histograms = self._read(files.read_histograms, trainer, 'histogram.npz')
            if len(histograms):
                self._save(trainer, 'histogram.png', draw.histogram, histograms)

    def _read(self, read, trainer, filename):
        path = os.path.join(trainer.out, filename)
        try:
            return read(path)
        except (OSError, ValueError) as error:
            _warn(
                f'nothing is drawn from {path}: {getattr(error, "strerror", error)}; it is written'
                ' by chainerlp.extensions.ScaleReport'
            )
            return ()

    def _save(self, trainer, filename, draw, *values):
        path = os.path.join(trainer.out, filename)
        try:
            with files.atomic_write(path) as unfinished:
                draw(*values).savefig(unfinished)
        except Exception as error:
            _warn(f'{path} is not up to date: {error}')


def _threshold_of(trainer):
    for optimizer in trainer.updater.get_all_optimizers().values():
        threshold = getattr(getattr(optimizer, 'policy', None), 'threshold', None)
        if threshold is not None:
            return threshold
    return None


def _warn(message):
    warnings.warn(f'PlotScales: {message}', RuntimeWarning, stacklevel=4)
