"""The schema of a config file; :func:`experiments.config.loading.load` reads one."""

from experiments.config.dataset import Digits
from experiments.config.experiment import Config, Sweep, Train
from experiments.config.model import MLP
from experiments.config.optimizer import SGD, Schedule
from experiments.config.scaling import Adaptive, Amax, Measured, label
from experiments.config.section import Interval

__all__ = [
    'SGD',
    'Adaptive',
    'Amax',
    'Config',
    'Digits',
    'Interval',
    'MLP',
    'Measured',
    'Schedule',
    'Sweep',
    'Train',
    'label',
]
