"""Many workers: under ``mpiexec``, the processes train one model with ChainerMN."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported
from experiments import ranks
from experiments.errors import ConfigError

import chainer
import numpy


def communicator(device):
    """Returns the communicator of the workers, or ``None`` if this process works alone.

    Alone, MPI is not even imported.

    Args:
        device (~chainer.backend.Device): Where the workers compute.

    Returns:
        ~chainermn.CommunicatorBase: ``naive`` on CPUs, ``pure_nccl`` on GPUs.

    Raises:
        ConfigError: If it was started under MPI without what that needs.
    """
    if ranks.is_alone():
        return None
    try:
        import chainermn

        return chainermn.create_communicator('naive' if device.xp is numpy else 'pure_nccl')
    except ImportError as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(
            f"mpiexec: {reason}; many workers need an MPI and: pip install '.[mpi]'"
        ) from None


def is_first(communicator):
    """Returns whether this worker is the one that writes and prints."""
    return communicator is None or communicator.rank == 0


def of_first(communicator, function):
    """Returns what a function returns on the first worker, to all of them.

    Args:
        communicator (~chainermn.CommunicatorBase): Or ``None``.
        function (callable): Called without arguments, by the first worker only.

    Raises:
        Exception: What it raises there, on all workers.
    """
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


def own_device(device, communicator):
    """Returns this worker's device: on a host with several GPUs each has its own.

    Args:
        device (~chainer.backend.Device): The first worker's.
        communicator (~chainermn.CommunicatorBase): Or ``None``.
    """
    if communicator is None or device.xp is numpy:
        return device
    return chainer.get_device(f'@cupy:{device.device.id + communicator.intra_rank}')


def share(dataset, communicator, **kwargs):
    """Returns this worker's share of a data set; all of it if it works alone."""
    if communicator is None:
        return dataset
    import chainermn

    return chainermn.scatter_dataset(dataset, communicator, **kwargs)


def averaging(optimizer, communicator):
    """Returns the optimizer that averages gradients over the workers before it updates."""
    if communicator is None:
        return optimizer
    import chainermn

    return chainermn.create_multi_node_optimizer(optimizer, communicator)


def equalize(optimizer, communicator):
    """Gives all workers the first one's parameters.

    ChainerMN would spend the first update on it, and a training would be one update shorter. It
    still does if there are parameters whose size is not known yet.

    Args:
        optimizer (~chainer.GradientMethod): Made of :func:`averaging`, and set up.
        communicator (~chainermn.CommunicatorBase): Or ``None``.
    """
    if communicator is not None:
        optimizer.is_changed(optimizer.target)  # it takes note of the parameters that there are
        communicator.bcast_data(optimizer.target)
