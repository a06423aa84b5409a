"""Blocks are named, gone through and called in their order."""

from experiments.models.blocks import Blocks
from experiments.models.resnet import CIFARResNet

import chainer
import pytest


class Noting(chainer.Link):
    def forward(self, seen):
        return [*seen, self]


@pytest.mark.parametrize('count', [1, 3, 12])
def test_blocks_are_called_in_the_order_of_their_names(count):
    links = [Noting() for _ in range(count)]
    blocks = Blocks(*links)
    assert blocks([]) == list(blocks.children()) == links
    names = [link.name for link in links]
    assert [int(name.removeprefix('block')) for name in names] == list(range(1, count + 1))
    assert names == sorted(names)


def test_the_blocks_of_a_resnet_are_numbered_from_the_input_to_the_output():
    # Of 56, since two blocks in a row were numbered rightly by chainer.Sequential as well.
    stage = CIFARResNet(56, 10).stage2
    first, *others = stage.children()
    assert first.name == 'block1' and first.conv1.conv.stride == (2, 2)
    assert [block.name for block in others] == [f'block{number}' for number in range(2, 10)]
