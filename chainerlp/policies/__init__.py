"""How the scale of a layer is chosen: one frozen dataclass and one formula a policy.

A policy is a :class:`Policy`; its ``scale(gy, W, total_scale=1.0)`` returns the factor α by which a
layer multiplies gx = gy · W before it is rounded. Arrays hold what is stored, that is,
``total_scale`` times the true gradient. Where a formula has no answer (an empty array, gy or W all
zero, inf or NaN among them) α is 1; the bounds hold all the same.
"""

from chainerlp.policies.adaptive import Adaptive
from chainerlp.policies.baselines import AbsRange, ElementWiseRange, Fixed, LogNormal
from chainerlp.policies.current import Amax, Measured
from chainerlp.policies.per_sample import PerSample
from chainerlp.policies.policy import Policy, check

__all__ = [
    'AbsRange',
    'Adaptive',
    'Amax',
    'ElementWiseRange',
    'Fixed',
    'LogNormal',
    'Measured',
    'PerSample',
    'Policy',
    'check',
]
