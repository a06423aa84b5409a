"""Snapshots: written as a whole or not at all, and the newest that is intact found again.

A snapshot's file holds arrays by key, in NumPy's npz format, and nothing pickled, since a pickle of
someone else's could run any program. Chainer gives ``None`` as an array of an object, which NumPy
pickles; here it is four bytes that stand for it. Older snapshots hold the pickled ``None``, which
is told from all other pickles by its bytes.
"""

import contextlib
import glob
import io
import os
import re
import zipfile

import chainerlp
from chainerlp import master_weights
from chainerlp.extensions.files import atomic_write
from experiments.config import bounded_file
from experiments.config.errors import RunError
from experiments.reports import manifest
from experiments.run import multi_node

import numpy
from chainer import serializers, training
from chainer.serializers import npz
from numpy.lib import format as npy

ASIDE = '.damaged'
"""str: What is added to the name of a file that is put aside."""

_NAME = 'snapshot_iter_'
_RUN = 'run'  # the key of the run's name
_KEPT = 2  # the newest might turn out to be damaged
_NONE = numpy.array(b'None', 'V4')
# What chainer.Sequential named 0, 2, 1: by such names one block's weights would be another's.
_OLD_BLOCK = re.compile(r'/(stage\d|blocks)/\d+/')
_PICKLED_NONES = (
    # NumPy 1's
    b'\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01b'
    b'q\x03\x87q\x04Rq\x05(K\x01)cnumpy\ndtype\nq\x06X\x02\x00\x00\x00O8q\x07\x89\x88\x87q\x08Rq\t('
    b'K\x03X\x01\x00\x00\x00|q\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x0bb\x89]q\x0cNatq\rb.',
    # NumPy 2's
    b'\x80\x04\x95\x87\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray\x94\x8c\x0c_recons'
    b'truct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R'
    b'\x94(K\x01)h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02O8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|'
    b'\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t\x94b\x89]\x94Nat\x94b.',
)
# The record at the end of a zip file, before a comment of 64 kB at most: how many files it holds
# stands at 10, in two bytes, and is no more than that says.
_END, _END_SIZE, _MOST = b'PK\x05\x06', 22, 0xFFFF


def path_of(folder, iteration):
    """Returns the path of an iteration's snapshot."""
    return os.path.join(folder, f'{_NAME}{iteration}')


def found(folder):
    """Returns the iterations of the snapshots in a folder, the newest first."""
    names = [os.path.basename(path) for path in glob.glob(path_of(glob.escape(folder), '*'))]
    matches = [re.fullmatch(rf'{_NAME}(\d+)', name) for name in names]
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def newest_intact(folder, name=None):
    """Finds what to resume from.

    A snapshot is intact if it is the one that the run's manifest knows. Where there is no manifest,
    as in older versions, or it is damaged, its file has to be whole, and of a run of that name.

    Args:
        folder (str): The run's.
        name (str): The run's, if that is known.

    Returns:
        tuple: The iteration of the newest snapshot that is intact, or ``None``; and why each newer
        one is not, a dict by its iteration.
    """
    noted, damaged = manifest.known(folder, name), {}
    for iteration in found(folder):
        path = path_of(folder, iteration)
        if noted.name is not None:
            reason = noted.damage_of_snapshot(path, iteration)
        else:
            reason = None if is_intact(path, name) else 'no whole zip file, or of another run'
        if reason is None:
            return iteration, damaged
        damaged[iteration] = reason
    return None, damaged


def save(trainer):
    """Writes a trainer's snapshot into its folder, and removes those before the previous one.

    Raises:
        RunError: If it cannot be written, say because the disk is full, or because an extension's
            state holds objects. The previous one is then as it was, and nothing is left of the new.
    """
    iteration = trainer.updater.iteration
    # In memory: a zip file that is cut off by a full disk would complain once more.
    noted = manifest.known(trainer.out)
    content = to_bytes({**npz.serialize(trainer), _RUN: numpy.array(noted.name)})
    path = path_of(trainer.out, iteration)
    before = [other for other in found(trainer.out) if other < iteration]
    try:
        # Noted first: what is not noted, after a kill in between, would be taken for another run's.
        noted.note_snapshot(trainer.out, iteration, content, before[: _KEPT - 1])
        noted.write(trainer.out)
        with atomic_write(path) as unfinished, open(unfinished, 'wb') as file:
            file.write(content)
    except OSError as error:
        kept = f'; {path_of(trainer.out, before[0])} is intact' if before else ''
        raise RunError(f'{path} could not be written: {error.strerror}{kept}') from error
    keep(trainer.out, _KEPT)


def keep(folder, count):
    """Removes all snapshots but the newest ones."""
    for iteration in found(folder)[count:]:
        remove(path_of(folder, iteration))


def remove(path):
    """Removes a file of a run; a folder in its place is put aside, as what it holds is not ours."""
    if not os.path.isdir(path) or os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    elif not path.endswith(ASIDE):
        os.replace(path, path + ASIDE)


def load(path, trainer, communicator=None):
    """Loads a snapshot, which the first worker reads, into the trainer of every worker.

    Raises:
        RunError: If it is one of another model, or of another version of the experiments, or if it
            holds a pickled object.
    """
    content = read(path) if multi_node.is_first(communicator) else None
    if communicator is not None:
        content = communicator.bcast_obj(content)
    old = next(filter(_OLD_BLOCK.search, content), None)
    if old is not None:
        raise RunError(
            f'{path} does not fit: {old} is named as blocks were when they were numbered in another'
            ' order than their own, now block1, block2 and so on: --fresh starts over'
        )
    try:
        serializers.NpzDeserializer(content).load(trainer)
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(
            f'{path} does not fit, it may be of another version ({error}): --fresh starts over'
        ) from error


class Snapshots(training.Extension):
    """Trainer extension that saves the trainer, at its interval and when the run is to stop.

    All workers have it, and only the first writes; if one is to stop, all do. The trigger ``due``
    is not the extension's own, since that is asked at every iteration whether to stop.
    """

    trigger = (1, 'iteration')
    priority = -200  # after everything whose state it saves

    def __init__(self, due, stop, communicator=None):
        self._due = due
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
        stops = wanted and trainer.updater.iteration < trainer.stop_trigger.period
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


def to_bytes(arrays):
    """Returns the bytes of a file that holds arrays, given as :func:`read` returns them.

    Raises:
        RunError: If one holds objects other than ``None``.
    """
    plain = {}
    for key, array in arrays.items():
        array = numpy.asarray(array)
        if array.dtype.hasobject:
            if array.shape != () or array[()] is not None:
                raise RunError(f'{key}: given Python objects, allowed: numbers, text and None')
            array = _NONE
        plain[key] = array
    file = io.BytesIO()
    numpy.savez(file, **plain)
    return file.getvalue()


def read(path):
    """Returns the arrays of a file, a dict by key; ``None`` is an array of it, as with Chainer.

    Raises:
        RunError: If one could be read only by running what it says, or is larger than the file.
    """
    with zipfile.ZipFile(path) as archive:
        if not _is_bounded(archive):
            raise RunError(f'{path}: its arrays are larger than the file; --fresh starts over')
        return {
            name.removesuffix('.npy'): _array(archive, name, path) for name in archive.namelist()
        }


def is_intact(path, name=None):
    """Returns whether a file is there, has all arrays that it says it has, and each is whole.

    If it says of which run it is, and that is asked for, it has to be one of that name.
    """
    try:
        with bounded_file.open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = set(archive.namelist())
            is_other = name is not None and f'{_RUN}.npy' in members
            is_other = is_other and _array(archive, f'{_RUN}.npy', path)[()] not in (None, name)
            is_whole = min(len(members), _MOST) == _count(file) and _is_bounded(archive)
            is_whole = is_whole and archive.testzip() is None
            return is_whole and not is_other
    except Exception:  # of a damaged zip file Python raises nearly anything
        return False


def _is_bounded(archive):
    """Returns whether what a zip file holds, of which none is compressed, has room in it."""
    size = sum(info.file_size for info in archive.infolist())
    return size <= archive.start_dir and bounded_file.oversized_array(archive) is None


def _count(file):
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST - _END_SIZE))
    end = file.read()
    at = end.rindex(_END) + 10
    return int.from_bytes(end[at : at + 2], 'little')


def _array(archive, name, path):
    try:
        with archive.open(name) as file:
            array = npy.read_array(file, allow_pickle=False)
    except ValueError as error:
        if not _is_pickled_none(archive, name):
            raise RunError(
                f'{path}: {name.removesuffix(".npy")} is not read, since only plain arrays are'
                f' ({error}); --fresh starts over'
            ) from None
        array = _NONE
    return numpy.array(None) if array.dtype == _NONE.dtype and array == _NONE else array


def _is_pickled_none(archive, name):
    try:
        with archive.open(name) as file:
            is_known = npy.read_magic(file) == (1, 0)
            npy.read_array_header_1_0(file)
            return is_known and file.read(max(map(len, _PICKLED_NONES)) + 1) in _PICKLED_NONES
    except ValueError:
        return False
