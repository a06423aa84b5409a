"""Trainer extensions."""

from chainerlp.extensions.probe import Measurement
from chainerlp.extensions.scale_report import ScaleReport

__all__ = ['Measurement', 'ScaleReport']
