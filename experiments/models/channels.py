"""The width of a network: one factor on all its numbers of channels."""


def scaled(channels, width):
    """Returns a number of channels times a width, rounded, at least 1.

    >>> scaled(64, 0.25), scaled(3, 0.1)
    (16, 1)

    Args:
        channels (int): As the network is published.
        width (float): The factor.
    """
    return max(1, round(channels * width))
