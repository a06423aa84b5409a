"""Trainer extensions."""

from chainerlp.extensions.measurement import Measurement
from chainerlp.extensions.plot_scales import PlotScales
from chainerlp.extensions.scale_report import ScaleReport

__all__ = ['Measurement', 'PlotScales', 'ScaleReport']
