"""The models; each says for which task it is, if not for classification."""

from typing import Annotated, ClassVar, Literal, Optional, Union

from experiments.config.section import Depth, Section, Size

import pydantic
from pydantic import Field


def _whole_blocks(step, allowed):
    def check(depth):
        if depth < step + 2 or depth % step != 2:
            raise ValueError(allowed)
        return depth

    return pydantic.AfterValidator(check)


class _Model(Section):
    task: ClassVar[str] = 'classification'


class MLP(_Model):
    """A multilayer perceptron: linear layers with an activation in between."""

    name: Literal['mlp']
    layers: Annotated[Depth, Field(ge=2)]
    """Linear layers, the last one included."""
    units: Size
    """Units of every layer but the last."""
    activation: Literal['relu', 'sigmoid'] = 'relu'
    """With weights after He et al. or, of a sigmoid, LeCun et al."""


class CNN(_Model):
    """A small convolutional network: three 3x3 convolutions and a linear layer."""

    name: Literal['cnn']
    channels: Annotated[tuple[Size, Size, Size], Field(strict=False)] = (32, 64, 64)
    """Output channels of the convolutions."""


class DeepCNN(_Model):
    """A small convolutional network: five 3x3 convolutions and a linear layer."""

    name: Literal['deep_cnn']
    batch_normalization: bool = False
    """After each convolution."""


class CIFARResNet(_Model):
    """A residual network for CIFAR (He et al. 2016, section 4.2)."""

    name: Literal['resnet_cifar']
    depth: Annotated[Depth, _whole_blocks(6, '6n + 2, such as 20, 56 or 110')]
    """6n + 2, such as 20, 56 or 110."""
    variant: Literal['he', 'zhao'] = 'he'
    """he: of He et al.; zhao: of the code of the paper on loss scaling, with a 1x1 convolution as
    the first shortcut of every stage, and the stride in a block's second convolution."""


class PreActivationResNet(_Model):
    """A pre-activation residual network of bottlenecks for CIFAR (He et al. 2016b)."""

    name: Literal['preactivation_resnet']
    depth: Annotated[Depth, _whole_blocks(9, '9n + 2, such as 164')]
    """9n + 2, such as 164."""


class CIFARVGG(_Model):
    """VGG-16 for CIFAR."""

    name: Literal['vgg_cifar']
    batch_normalization: bool = True
    """After each convolution."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last layer's inputs that are dropped in training."""


class ImageNetResNet(_Model):
    """A residual network for ImageNet (He et al. 2016, table 1)."""

    name: Literal['resnet_imagenet']
    depth: Literal[18, 50]
    zero_init_residual: bool = False
    """Begin with residual blocks that are the identity (Goyal et al. 2017, section 5.1)."""
    stride_in_3x3: bool = False
    """Where a bottleneck has its stride; the published networks have it in the 1x1."""
    variant: Literal['he', 'zhao'] = 'he'
    """As of resnet_cifar; zhao also with Goyal et al.'s first weights, a bias in the first
    convolution of ResNet-50, and no padding in the first pooling."""


class SSD(_Model):
    """A single-shot detector (Liu et al. 2016)."""

    task: ClassVar[str] = 'detection'

    name: Literal['ssd']
    size: Literal[300, 512] = 300
    """Side of the input; the data set's."""
    width: Annotated[float, Field(gt=0, le=16)] = 1.0
    """Factor on the number of channels, for small trainings."""
    pretrained: Optional[str] = None
    """VGG-16's weights: npz of Chainer's VGG16Layers, or the caffemodel."""
    scaled_cast: bool = False
    """Casts to float32 have scales of their own (IJCAI 2020/404), where layers do."""


class SegNet(_Model):
    """SegNet-Basic (Badrinarayanan et al. 2017)."""

    task: ClassVar[str] = 'segmentation'

    name: Literal['segnet']
    channels: Size = 64
    """Of every layer."""
    scaled_cast: bool = False
    """The logits' cast to float32 has a scale of its own (IJCAI 2020/404), where layers do."""


class Transformer(_Model):
    """A causal transformer (Vaswani et al. 2017) with normalization before each sublayer."""

    task: ClassVar[str] = 'language'

    name: Literal['transformer']
    layers: Depth = 2
    """Blocks of attention and two linear layers."""
    units: Size = 64
    """Of a position; four times as many between the two linear layers of a block."""
    heads: Size = 4
    """Attention heads, which share the units."""

    @pydantic.model_validator(mode='after')
    def _whole_heads(self):
        if self.units % self.heads:
            raise ValueError(f'units that the heads ({self.heads}) can share, such as 64 of 4')
        return self


Model = Annotated[
    Union[
        MLP,
        CNN,
        DeepCNN,
        CIFARResNet,
        PreActivationResNet,
        CIFARVGG,
        ImageNetResNet,
        SSD,
        SegNet,
        Transformer,
    ],
    Field(discriminator='name'),
]
