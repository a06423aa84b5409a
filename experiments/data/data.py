"""What every data set is loaded as."""

import dataclasses
from typing import Any, Optional


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, for one of three tasks.

    Examples are tuples. Images are arrays of shape (channels, height, width), colours in the order
    red, green, blue, of the dtype that the model computes in.

    - Classification: features (an image, or a vector) and class (int32).
    - Detection: image; boxes, float32 of shape (n, 4), each (y_min, x_min, y_max, x_max) in pixels
      of that image; classes of the boxes, int32 of shape (n,). In ``test`` a fourth: whether each
      is difficult, bool of shape (n,). There are images without boxes.
    - Segmentation: image and class of each pixel, int32 of shape (height, width), -1 for void.

    What is random in a training example is drawn as ``experiments.data.randomness`` says.

    Attributes:
        train (~chainer.dataset.DatasetMixin): Examples to train with.
        test (~chainer.dataset.DatasetMixin): Examples to evaluate with.
        shape (tuple of int): Shape of one training example's features.
        classes (int): Number of classes; neither void nor a detector's background counts.
        class_names (tuple of str): Their names in order, or ``None`` if they are just numbers.
        class_weights (numpy.ndarray): What the loss weighs each class with, float32, or ``None``.
        mean: What was subtracted, in units of pixels (0 to 255), per channel: a tuple of floats;
            or per pixel: an array of the shape of an image. ``None`` if nothing was.
        eleven_point (bool): Whether average precision is taken at eleven points, as for VOC 2007.
    """

    train: Any
    test: Any
    shape: tuple
    classes: int
    class_names: Optional[tuple] = None
    class_weights: Any = None
    mean: Any = None
    eleven_point: bool = False
