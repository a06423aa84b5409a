"""The schema of a config file: what may stand in it, and what it means."""

from experiments.config.datasets import Dataset, Digits, Loading
from experiments.config.experiment import Config
from experiments.config.models import MLP, Model
from experiments.config.optimizers import SGD, Adam, MomentumSGD, Optimizer
from experiments.config.scaling import (
    Adaptive,
    Amax,
    Dynamic,
    Fixed,
    Fp32,
    Measured,
    Scaling,
    Unscaled,
    label,
)
from experiments.config.schedule import Schedule, Step, Warmup
from experiments.config.section import UNITS, Interval, Section
from experiments.config.sweep import Sweep
from experiments.config.train import Report, Train

__all__ = [
    'SGD',
    'UNITS',
    'Adam',
    'Adaptive',
    'Amax',
    'Config',
    'Dataset',
    'Digits',
    'Dynamic',
    'Fixed',
    'Fp32',
    'Interval',
    'Loading',
    'MLP',
    'Measured',
    'Model',
    'MomentumSGD',
    'Optimizer',
    'Report',
    'Scaling',
    'Schedule',
    'Section',
    'Step',
    'Sweep',
    'Train',
    'Unscaled',
    'Warmup',
    'label',
]
