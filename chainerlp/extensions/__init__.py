"""Trainer extensions."""

from chainerlp.extensions.plot_scales import PlotScales
from chainerlp.extensions.scale_report import ScaleReport

__all__ = ['PlotScales', 'ScaleReport']
