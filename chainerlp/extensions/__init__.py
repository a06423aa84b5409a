"""Trainer extensions."""

from chainerlp.extensions.gradient_error import GradientError
from chainerlp.extensions.plot_scales import PlotScales
from chainerlp.extensions.scale_report import ScaleReport

__all__ = [
    'GradientError',
    'PlotScales',
    'ScaleReport',
]
