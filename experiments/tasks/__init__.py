"""The tasks: classification, detection, segmentation, one file each, and language.

Language is the classification of each position of a text by the character that follows.
"""

from experiments.tasks import classification, detection, segmentation
from experiments.tasks.task import Task

_TASKS = {
    'classification': classification.TASK,
    'detection': detection.TASK,
    'segmentation': segmentation.TASK,
    'language': classification.TASK,
}

__all__ = ['Task', 'get', 'titles']


def get(name):
    """Returns a task by its name, as the sections of data sets and models give it."""
    return _TASKS[name]


def titles():
    """Returns the metrics of all tasks in words, a dict by their keys in a log."""
    return {task.key: task.title for task in _TASKS.values()}
