"""Many workers: under ``mpiexec``, the processes train one model with ChainerMN.

Where a function takes a communicator, ``None`` stands for a process that works alone.
"""

import os

from experiments.config.errors import ConfigError

import numpy

# What OpenMPI, MPICH and MVAPICH tell each process about how many there are, and which it is.
_SIZES = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MV2_COMM_WORLD_SIZE')
_RANKS = ('OMPI_COMM_WORLD_RANK', 'PMI_RANK', 'MV2_COMM_WORLD_RANK')


def is_alone():
    """Returns whether this process was started without others; MPI is not imported for it."""
    return all(int(os.environ.get(size, 1)) < 2 for size in _SIZES)


def is_first_process():
    """Returns whether this process is the first of those that were started together."""
    return is_alone() or all(int(os.environ.get(rank, 0)) == 0 for rank in _RANKS)


def create_communicator(device):
    """Returns the communicator of the workers, or ``None`` if this process works alone.

    It is ``naive`` on CPUs and ``pure_nccl`` on GPUs. Alone, MPI is not even imported.

    Raises:
        ConfigError: If it was started under MPI without what that needs.
    """
    if is_alone():
        return None
    try:
        import chainermn

        return chainermn.create_communicator('naive' if device.xp is numpy else 'pure_nccl')
    except ImportError as error:
        raise ConfigError(
            f"mpiexec: {error}; many workers need an MPI and: pip install '.[mpi]'"
        ) from None


def is_first(communicator):
    """Returns whether this worker is the one that writes and prints."""
    return communicator is None or communicator.rank == 0


def on_first(communicator, function):
    """Returns to all workers what a function returns on the first one, or raises its error."""
    if communicator is None:
        return function()
    value = error = None
    if communicator.rank == 0:
        try:
            value = function()
        except Exception as raised:  # the others would wait for ever
            error = raised
    value, error = communicator.mpi_comm.bcast((value, error))
    if error is not None:
        raise error
    return value


def share(dataset, communicator, **kwargs):
    """Returns this worker's share of a data set; all of it if it works alone."""
    if communicator is None:
        return dataset
    import chainermn

    return chainermn.scatter_dataset(dataset, communicator, **kwargs)


def average_gradients(optimizer, communicator):
    """Returns the optimizer that averages gradients over the workers before it updates."""
    if communicator is None:
        return optimizer
    import chainermn

    return chainermn.create_multi_node_optimizer(optimizer, communicator)


def bcast_params(optimizer, communicator):
    """Gives all workers the first one's parameters, on which ChainerMN would spend an update.

    It still does if there are parameters whose size is not known yet. The optimizer is made by
    :func:`average_gradients`, and set up.
    """
    if communicator is not None:
        optimizer.is_changed(optimizer.target)  # it takes note of the parameters that there are
        communicator.bcast_data(optimizer.target)
