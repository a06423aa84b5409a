"""Chainer's own updaters for several devices, in which no layer can be scaled: refused.

They run ``loss.backward()`` on each device and hand the gradients to the optimizer. An error in its
``update()`` is too late: ``MultiprocessParallelUpdater`` has started a process for each device by
then, these wait on their devices for the parameters that the first one would have sent, and
``finalize()`` waits for them. But both updaters ask the optimizer for its target before that, when
they are made.
"""

_REFUSED = (
    'chainer.training.updaters.parallel_updater',
    'chainer.training.updaters.multiprocess_parallel_updater',
)


def refuse(caller):
    """Raises an error if it is one of these updaters that calls.

    Args:
        caller (frame): Of the function that calls.

    Raises:
        RuntimeError: If it is part of such an updater.
    """
    module = caller.f_globals.get('__name__', '')
    if module in _REFUSED:
        raise RuntimeError(
            f'{module.rpartition(".")[-1]} runs loss.backward(), in which no layer is scaled: use'
            ' ChainerMN, AdaptiveLossScaling(create_multi_node_optimizer(...)), under mpiexec, or'
            ' one device and a StandardUpdater'
        )
