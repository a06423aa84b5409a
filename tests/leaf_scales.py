"""The total scales with which gradients arrive at the leaves of a graph."""

import contextlib

from chainerlp import backprop


@contextlib.contextmanager
def leaf_scales():
    """Context manager in which scaled backward passes note the scales that arrive at their leaves.

    Yields:
        dict: By the id of a variable the total scale of its gradient; of several the smallest.
    """
    scales = {}
    accumulate = backprop.ScaledBackprop._accumulate

    def noting(self, leaf, gradients, is_unscaled):
        scales[id(leaf.get_variable_or_none())] = min(float(g.scale) for g in gradients)
        accumulate(self, leaf, gradients, is_unscaled)

    backprop.ScaledBackprop._accumulate = noting
    try:
        yield scales
    finally:
        backprop.ScaledBackprop._accumulate = accumulate
