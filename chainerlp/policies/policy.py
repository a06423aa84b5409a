"""What a policy is."""


class Policy:
    """How a layer's scale is chosen.

    A policy of one's own is a subclass with one method, ``scale``.

    Example::

        class Half(chainerlp.policies.Policy):
            def scale(self, gy, W, total_scale=1.0, **context):
                return 0.5

    Attributes:
        interval (int): A scale is chosen anew every so many backward passes and kept in between; 1
            by default.
        scales_weights (bool): Whether weight gradients, too, get a scale of their own (that of
            :class:`Amax`) unless the optimizer is told otherwise; ``False`` by default.
        needs_product (bool): Whether ``scale`` looks at the product gx. Where no policy does, a
            GPU forms, scales and rounds it at once; ``True`` by default.
    """

    interval = 1
    scales_weights = False
    needs_product = True

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        """Returns the factor α for a layer's data gradient.

        Args:
            gy (:ref:`ndarray`): Gradient of the layer's output as it is stored, float16 or float32.
            W (:ref:`ndarray`): The layer's weight, (out, in) or (out, in / groups, kh, kw).
            total_scale (float or 0-d array): The scale that gy carries.
            terms (int): How many products are summed into an element of gx (K of the paper); by
                default ``out``, or ``out * kh * kw``.
            product (:ref:`ndarray`): gx in float32, before α, if the policy ``needs_product``.
                Without it, policies that look at it form it themselves (then W is a plain layer's:
                stride 1, no padding).
            backoff (float): The factor, at most 1, by which gradients are kept smaller than the
                policy would have them, because they overflowed. gy / backoff is what it would be
                without: a policy that looks at gy looks at that, so as not to make up for it.

        Returns:
            float or 0-d float32 array: α; a float for NumPy arrays, for CuPy arrays an array on
            their device (or a float, if it is a constant).
        """
        raise NotImplementedError(f'{type(self).__name__} has no method scale')

    def within_bounds(self, scale, total_scale, backoff=1.0):
        """Returns a scale that was chosen before, made smaller where bounds ask for it now.

        It is called for scales that are kept over an ``interval``, since what gy carries may have
        grown. By default there are no bounds.

        Args:
            scale (float or 0-d array): What :meth:`scale` returned.
            total_scale (float or 0-d array): As there.
            backoff (float): As there.
        """
        return scale


def check(policy):
    """Makes sure that something is a policy, or has all that one has.

    Args:
        policy: Anything.

    Returns:
        The policy.

    Raises:
        TypeError: If it is not; names what is missing.
    """
    if isinstance(policy, type) or not callable(getattr(policy, 'scale', None)):
        raise TypeError(
            f'policy must be one of chainerlp.policies, such as Adaptive(), not {policy!r}'
        )
    parts = ('interval', 'scales_weights', 'needs_product', 'within_bounds')
    missing = [part for part in parts if not hasattr(policy, part)]
    if missing:
        raise TypeError(
            f'policy {type(policy).__name__} has no {missing[0]}: derive it from'
            ' chainerlp.policies.Policy'
        )
    return policy
