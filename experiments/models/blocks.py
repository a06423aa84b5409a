"""Blocks in a row, named in their order."""

import chainer


class Blocks(chainer.Chain):
    """Links of which each gets what the one before returned.

    They are called ``block1``, ``block2``, ..., or, if there are ten or more, ``block01``, ..., so
    that the alphabet's order, in which Chainer goes through links, is theirs. That of
    ``chainer.Sequential`` is not: its ``insert`` names three links 0, 2, 1.

    Args:
        *blocks (~chainer.Link): The links.
    """

    def __init__(self, *blocks):
        digits = len(str(len(blocks)))
        super().__init__(
            **{f'block{number:0{digits}}': block for number, block in enumerate(blocks, 1)}
        )

    def forward(self, h):
        """Returns what the last block does."""
        for block in self.children():
            h = block(h)
        return h
