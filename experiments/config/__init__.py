"""The schema of a config file; :func:`experiments.config.loading.load` reads one."""

from experiments.config.dataset import Digits
from experiments.config.experiment import Config, Sweep
from experiments.config.model import MLP
from experiments.config.optimizer import SGD, Schedule
from experiments.config.scaling import Adaptive, Amax, Measured, label

__all__ = [
    'SGD',
    'Adaptive',
    'Amax',
    'Config',
    'Digits',
    'MLP',
    'Measured',
    'Schedule',
    'Sweep',
    'label',
]
