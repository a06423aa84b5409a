"""Snapshots: written as a whole or not at all, and the newest that is intact found again."""

import glob
import os
import re

import chainerlp
from chainerlp import master_weights
from chainerlp.extensions.files import atomic_write
from experiments.config.errors import RunError
from experiments.run import multi_node, snapshot_file

from chainer import serializers, training
from chainer.serializers import npz

_NAME = 'snapshot_iter_'
_KEPT = 2  # the newest might turn out to be damaged


def path_of(folder, iteration):
    """Returns the path of an iteration's snapshot."""
    return os.path.join(folder, f'{_NAME}{iteration}')


def found(folder):
    """Returns the iterations of the snapshots in a folder, the newest first."""
    names = [os.path.basename(path) for path in glob.glob(path_of(glob.escape(folder), '*'))]
    matches = [re.fullmatch(rf'{_NAME}(\d+)', name) for name in names]
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def newest_intact(folder):
    """Finds what to resume from.

    Returns:
        tuple: The iteration of the newest snapshot that is intact, or ``None``; and the iterations
        of newer ones, which are damaged, a list.
    """
    damaged = []
    for iteration in found(folder):
        if snapshot_file.is_intact(path_of(folder, iteration)):
            return iteration, damaged
        damaged.append(iteration)
    return None, damaged


def save(trainer):
    """Writes a trainer's snapshot into its folder, and removes those before the previous one.

    Raises:
        RunError: If it cannot be written, say because the disk is full, or because an extension's
            state holds objects. The previous one is then as it was, and nothing is left of the new.
    """
    iteration = trainer.updater.iteration
    # In memory: a zip file that is cut off by a full disk would complain once more.
    content = snapshot_file.content(npz.serialize(trainer))
    path = path_of(trainer.out, iteration)
    try:
        with atomic_write(path) as unfinished, open(unfinished, 'wb') as file:
            file.write(content)
    except OSError as error:
        before = [other for other in found(trainer.out) if other < iteration]
        kept = f'; {path_of(trainer.out, before[0])} is intact' if before else ''
        raise RunError(f'{path} could not be written: {error.strerror}{kept}') from error
    keep(trainer.out, _KEPT)


def keep(folder, count):
    """Removes all snapshots but the newest ones."""
    for iteration in found(folder)[count:]:
        os.remove(path_of(folder, iteration))


def load(path, trainer, communicator=None):
    """Loads a snapshot, which the first worker reads, into the trainer of every worker.

    Raises:
        RunError: If it is one of another model, or of another version of the experiments, or if it
            holds a pickled object.
    """
    content = snapshot_file.read(path) if multi_node.is_first(communicator) else None
    if communicator is not None:
        content = communicator.bcast_obj(content)
    try:
        serializers.NpzDeserializer(content).load(trainer)
    except (KeyError, ValueError, TypeError) as error:
        reason = ' '.join(str(error).split())
        raise RunError(
            f'{path} does not fit, it may be of another version ({reason}): --fresh starts over'
        ) from error


class Snapshots(training.Extension):
    """Trainer extension that saves the trainer, at its interval and when the run is to stop.

    All workers have it, and only the first writes; if one is to stop, all do. The trigger ``due``
    is not the extension's own, since that is asked at every iteration whether to stop.
    """

    trigger = (1, 'iteration')
    priority = -200  # after everything whose state it saves

    def __init__(self, due, iterations, stop, communicator=None):
        self._due = due
        self._iterations = iterations
        self._stop = stop
        self._communicator = communicator

    def __call__(self, trainer):
        """Saves and stops, or does not.

        Raises:
            KeyboardInterrupt: If the run is to stop and is not over.
        """
        due = self._due(trainer)
        wanted = self._stop.signal is not None
        if self._communicator is not None:
            wanted = any(self._communicator.mpi_comm.allgather(wanted))
        stops = wanted and trainer.updater.iteration < self._iterations
        if (due or stops) and multi_node.is_first(self._communicator):
            save(trainer)
        if stops:
            raise KeyboardInterrupt

    def serialize(self, serializer):
        """Saves or loads the trigger's state."""
        self._due.serialize(serializer['_due'])


class OptimizerState(training.Extension):
    """Trainer extension that saves and loads what Chainer's optimizers leave out of a snapshot.

    They leave out the float32 copies of float16 parameters, and the scale of dynamic loss scaling.
    :class:`~chainerlp.AdaptiveLossScaling` saves both itself.
    """

    default_name = 'Leftovers'  # snapshots have it under this name
    trigger = (1, 'iteration')

    def __init__(self, optimizer):
        self._optimizer = optimizer

    def __call__(self, trainer):
        """Does nothing."""

    def serialize(self, serializer):
        """Saves or loads it."""
        optimizer = self._optimizer
        if isinstance(optimizer, chainerlp.AdaptiveLossScaling):
            return
        master_weights.serialize(serializer['masters'], optimizer.target)
        if optimizer._loss_scaling_is_dynamic:
            optimizer._loss_scale = serializer('loss_scale', float(optimizer._loss_scale))
            optimizer._loss_scaling_isnan_ever = serializer(
                'has_overflowed', bool(optimizer._loss_scaling_isnan_ever)
            )
