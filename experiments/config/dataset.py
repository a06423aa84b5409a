"""The data sets; each says which task it sets, if not classification.

Nothing is downloaded: all but digits and text are read from a folder that the user names.
"""

from typing import Annotated, ClassVar, Literal, Optional, Union

from experiments.config.section import Count, Section, Size

from pydantic import Field

_Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Digits(Section):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, in 10 classes; part of the package."""

    task: ClassVar[str] = 'classification'

    name: Literal['digits']
    test_size: Annotated[int, Field(ge=10, le=1787)] = 360
    """How many are kept for the test set; the split is stratified and always the same."""


class _OfAFolder(Section):
    task: ClassVar[str] = 'classification'

    folder: str
    """Where the data is, relative to where the command is run."""
    train_size: Optional[Count] = None
    """Only so many examples to train with; of classification the same number of each class."""
    test_size: Optional[Count] = None
    """Likewise, to evaluate with."""


class MNIST(_OfAFolder):
    """MNIST's handwritten digits of 28x28 pixels, the four idx files, compressed or not."""

    name: Literal['mnist']


class CIFAR(_OfAFolder):
    """CIFAR-10 or CIFAR-100, the folder of the official Python batches or the one it is in."""

    name: Literal['cifar']
    classes: Literal[10, 100] = 10
    normalization: Literal['channel', 'pixel'] = 'channel'
    """Subtract mean and divide by deviation per channel; or subtract the mean image only."""
    augment: bool = True
    """Pad by 4, crop, flip."""


class ImageNet(_OfAFolder):
    """ImageNet, or other images in its layout: a folder a class in ``train`` and in ``val``."""

    name: Literal['imagenet']
    train: str = 'train'
    """Folder within the folder."""
    val: str = 'val'
    """Likewise; of folders like ``train``, or of images if there is a label file."""
    val_labels: Optional[str] = None
    """Label file of a flat ``val``: lines of name and label, or the official one."""
    ilsvrc_classes: Optional[str] = None
    """What the official label file's numbers mean: meta.mat, or one wnid a line."""
    size: Annotated[int, Field(ge=1, le=2**12)] = 224
    """Side of the network's input."""
    normalization: Literal['channel', 'mean'] = 'channel'
    """Subtract ImageNet's mean and divide by its deviation per channel; or subtract it only."""
    augment: bool = True
    """Crop at random sizes, flip."""
    skip_damaged: bool = False
    """Let another image stand in for one that cannot be decoded."""


class VOC(_OfAFolder):
    """PASCAL VOC's detection data, or other data in its layout."""

    task: ClassVar[str] = 'detection'

    name: Literal['voc']
    train: _Names = ('VOC2007/trainval', 'VOC2012/trainval')
    """Splits to train with, joined."""
    test: _Names = ('VOC2007/test',)
    """Splits to evaluate with, joined."""
    size: Literal[300, 512] = 300
    """Side of the network's input; the model's."""
    class_names: Optional[_Names] = None
    """The classes; null finds them in the annotations."""
    difficult: bool = False
    """Train with objects that are marked difficult, too."""
    eleven_point: bool = True
    """Average precision at eleven points, as for VOC 2007; or else the area under the curve."""
    augment: bool = True
    """Distort colours, expand, crop, flip."""
    skip_damaged: bool = False
    """Let another image stand in for one that cannot be decoded."""


class CamVid(_OfAFolder):
    """CamVid in SegNet's layout: images and annotations of 11 classes and void."""

    task: ClassVar[str] = 'segmentation'

    name: Literal['camvid']
    train: str = 'train'
    """Split to train with."""
    test: str = 'test'
    """Split to evaluate with."""
    crop: Annotated[Optional[tuple[Size, Size]], Field(strict=False)] = None
    """Height and width of random crops; null takes whole images."""
    normalization: Literal['data', 'imagenet', 'none'] = 'data'
    """Whose mean is subtracted, and by whose deviation is divided."""
    augment: bool = True
    """Flip."""
    skip_damaged: bool = False
    """Let another image stand in for one that cannot be decoded."""


class Text(Section):
    """The descriptions of scikit-learn's data sets, some 40,000 characters; part of the package."""

    task: ClassVar[str] = 'language'

    name: Literal['text']
    length: Size = 32
    """Characters of an example; examples do not overlap."""
    test_size: Count = 200
    """How many examples, the end of the text, are kept for the test set."""
    train_size: Optional[Count] = None
    """Only so many examples to train with, evenly spread."""


Dataset = Annotated[
    Union[Digits, MNIST, CIFAR, ImageNet, VOC, CamVid, Text], Field(discriminator='name')
]


class Loading(Section):
    """How examples are loaded; the training is the same whatever is said here."""

    workers: Annotated[int, Field(ge=0, le=2**10)] = 0
    """How many load ahead, at most one a CPU; 0 loads them in the training's own process."""
    pool: Literal['processes', 'threads'] = 'processes'
    """What they are."""
