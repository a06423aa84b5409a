"""The stages of a residual network: blocks whose feature maps have one size."""

import chainer


def stage(block, repeats, in_channels, out_channels, stride):
    """Chains residual blocks, the first of which may change the shape.

    Args:
        block (callable): Makes a block from its input channels, output channels and stride.
        repeats (int): Number of blocks.
        in_channels (int): Channels of the stage's input.
        out_channels (int): Channels of every block's output.
        stride (int): Of the first block; the others have 1.

    Returns:
        ~chainer.Sequential: The blocks.
    """
    first = block(in_channels, out_channels, stride)
    others = (block(out_channels, out_channels, 1) for _ in range(repeats - 1))
    return chainer.Sequential(first, *others)


def blocks_per_stage(depth, layers, known):
    """Returns n, where three stages of n blocks, the first layer and the last make up a depth.

    Args:
        depth (int): Number of layers of the network.
        layers (int): Layers of a block.
        known (str): Depths to name if this one cannot be.

    Raises:
        ValueError: If the depth is not 3 · layers · n + 2 for any n ≥ 1.
    """
    blocks, rest = divmod(depth - 2, 3 * layers)
    if rest or blocks < 1:
        raise ValueError(f'depth: given {depth}, allowed: {3 * layers}n + 2, such as {known}')
    return blocks
