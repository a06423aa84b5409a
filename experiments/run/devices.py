"""Chainer's devices, by the names that the command line takes."""

from chainerlp import compat
from experiments.config.errors import ConfigError

import chainer
import numpy


def get(specifier):
    """Returns a device, and makes sure that it can be used.

    Args:
        specifier (str): Such as ``@numpy`` or ``@cupy:0``; or the number of a GPU, -1 for the CPU,
            as Chainer's examples take it.

    Returns:
        ~chainer.backend.Device: The device.

    Raises:
        ConfigError: If there is no such device here.
    """
    if specifier.lstrip('-').isdecimal():
        specifier = f'@cupy:{specifier}' if int(specifier) >= 0 else '@numpy'
    try:
        device = chainer.get_device(specifier)
        device.use()
    except Exception as error:  # Chainer's, CuPy's or the driver's
        asks_for_cupy = str(specifier).startswith('@cupy')
        # Chainer's error points to a page that is gone, and CuPy's to the driver, whatever it is.
        reason = (asks_for_cupy and compat.why_no_cupy()) or ' '.join(str(error).split())
        raise ConfigError(
            f'--device {specifier}: {reason}; allowed: @numpy, or @cupy:0 with CuPy and a GPU'
        ) from None
    return device


def of_worker(device, communicator):
    """Returns this worker's device: on a host with several GPUs each worker has its own.

    Args:
        device (~chainer.backend.Device): The first worker's.
        communicator (~chainermn.CommunicatorBase): Of the workers; ``None`` if there is one.
    """
    if communicator is None or device.xp is numpy:
        return device
    return chainer.get_device(f'@cupy:{device.device.id + communicator.intra_rank}')
