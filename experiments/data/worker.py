"""Loading examples: what the processes and threads of a pool do."""

import signal

from experiments.data import randomness, stand_ins
from experiments.errors import ConfigError
from experiments.parents import end_with_parent

# Of a process of a pool: it is sent once.
_dataset = None


def examples(dataset, seed, places):
    """Loads examples.

    Args:
        dataset: The data set.
        seed (int): The run's seed.
        places (list of tuple of int): Epoch and index of each.

    Returns:
        tuple: The examples, and the notes about those that another stands in for; both lists.

    Raises:
        ConfigError: As the data set does.
        RuntimeError: Of any other error; it names the example.
    """
    loaded = []
    with stand_ins.collected() as notes:
        for epoch, index in places:
            try:
                with randomness.drawing(seed, epoch):
                    loaded.append(dataset[index])
            except ConfigError:  # it names the file
                raise
            except Exception as error:
                raise RuntimeError(
                    f'example {index} of the data set, in epoch {epoch}:'
                    f' {type(error).__name__}: {error}'
                ) from error
    return loaded, notes


def begin(dataset):
    """Prepares a process of a pool for :func:`examples_of_process`."""
    global _dataset
    _dataset = dataset
    # Ctrl-C goes to all processes of a terminal; the one that trains decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def examples_of_process(seed, places):
    """Loads examples of the data set that the process began with."""
    return examples(_dataset, seed, places)
