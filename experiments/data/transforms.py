"""Transforms of images and of the boxes in them: crops, flips, sizes, colours; overlaps of boxes.

An ``image`` is a :class:`PIL.Image.Image` where nothing else is said, ``boxes`` are an array of
shape (n, 4), each (y_min, x_min, y_max, x_max) in pixels of the image, and ``rng``, a
:class:`numpy.random.Generator`, draws what is random.
"""

import dataclasses
import math
from typing import Any

import numpy
from PIL import Image

# Of the training images of ImageNet, red, green, blue, in units of pixels (0 to 255), as ResNets
# are commonly trained with.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# The mean colour that VGG-16 was trained with, which SSD starts from.
VGG_MEAN = (123, 117, 104)

_LARGEST_CANVAS = 4.0
# Of a constrained crop; 0 is any patch.
_LEAST_IOUS = numpy.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.0])
# Its sides, relative to the image's. In the paper, a patch has 0.1 to 1 of the image's size; the
# authors' configuration says 0.3 of its sides.
_PATCH_SCALE = (0.3, 1.0)
_PATCH_ASPECT = (0.5, 2.0)
_PATCH_TRIALS = 50
# Of a random sized crop, as shares of the image's area, and width : height.
_CROP_AREA = (0.08, 1.0)
_CROP_ASPECT = (3 / 4, 4 / 3)
_CROP_TRIALS = 10
_FILTERS = [Image.Resampling[name] for name in ('NEAREST', 'BILINEAR', 'BICUBIC', 'BOX', 'LANCZOS')]
_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE_DEGREES = 36.0  # 18 in the authors' configuration, in OpenCV's units of two degrees
_LEVELS = numpy.arange(256)


def coin_toss(rng):
    """Returns True with a probability of a half."""
    return rng.random() < 0.5


def flip(image):
    """Returns a horizontally flipped view of an image, an array of shape (..., width)."""
    return image[..., ::-1]


def flip_boxes(boxes, width):
    """Returns the boxes of a horizontally flipped image of this width."""
    y_min, x_min, y_max, x_max = boxes.T
    return numpy.stack([y_min, width - x_max, y_max, width - x_min], axis=1)


def pad_and_crop(image, padding, rng):
    """Pads an image, an array (channels, height, width), with zeros, and crops it to its size.

    Zero is the mean colour of a normalized image.
    """
    _, height, width = image.shape
    padded = numpy.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    top, left = rng.integers(0, 2 * padding, size=2, endpoint=True)
    return padded[:, top : top + height, left : left + width]


def center_crop(image, shorter, size):
    """Resizes an image to this shorter side and crops the ``size`` x ``size`` middle."""
    width, height = image.size
    scale = shorter / min(width, height)
    width, height = max(shorter, round(width * scale)), max(shorter, round(height * scale))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def draw_patch(width, height, rng):
    """Draws a patch of an image of this size (Szegedy et al. 2015, section 6).

    Its area is uniform, its width : height uniform in the logarithm. If no draw fits, it is the
    largest patch in the middle whose aspect ratio is allowed. Returns left, top, right and bottom.
    """
    for _ in range(_CROP_TRIALS):
        area = width * height * rng.uniform(*_CROP_AREA)
        aspect = math.exp(rng.uniform(*map(math.log, _CROP_ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(0, width - w, endpoint=True))
            top = int(rng.integers(0, height - h, endpoint=True))
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * _CROP_ASPECT[1])))
    h = max(1, min(height, round(width / _CROP_ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def random_sized_crop(image, size, rng):
    """Returns a random patch of an image, resized to ``size`` x ``size``."""
    return image.resize((size, size), Image.Resampling.BILINEAR, box=draw_patch(*image.size, rng))


def resize(image, boxes, size, rng=None):
    """Resizes an image and its boxes to ``size`` x ``size``, whatever the proportions.

    ``rng`` draws the filter; without one it is bilinear.
    """
    width, height = image.size
    chosen = Image.Resampling.BILINEAR if rng is None else _FILTERS[rng.integers(len(_FILTERS))]
    scale = numpy.array([size / height, size / width] * 2, boxes.dtype)
    return image.resize((size, size), chosen), boxes * scale


def expand(image, boxes, fill, rng):
    """Zooms out with a probability of a half: places an image somewhere on a larger canvas.

    The canvas has 1 to 4 times the image's sides and the colour ``fill``, a tuple of int (Liu et
    al. 2016, section 3.6). Returns image and boxes.
    """
    if not coin_toss(rng):
        return image, boxes
    width, height = image.size
    ratio = rng.uniform(1, _LARGEST_CANVAS)
    canvas = Image.new(image.mode, (int(width * ratio), int(height * ratio)), fill)
    left = int(rng.integers(0, canvas.width - width, endpoint=True))
    top = int(rng.integers(0, canvas.height - height, endpoint=True))
    canvas.paste(image, (left, top))
    return canvas, boxes + numpy.array([top, left, top, left], boxes.dtype)


def constrained_crop(image, boxes, rng):
    """Crops an image to a random patch that its objects are in (Liu et al. 2016, section 2.2).

    For each least IoU of ``_LEAST_IOUS`` the first of 50 patches is taken whose IoU with every
    object is at least that. Of these patches, as many as were found, and the whole image one is
    drawn. An image without boxes stays whole. So does ChainerCV; in Caffe one object is enough.

    Returns:
        tuple: The patch; the boxes whose centres are in it, clipped to it; and their indices.
    """
    width, height = image.size
    found = [(0, 0, height, width)]
    if len(boxes):
        patches = _candidate_patches(width, height, rng)
        iou = box_iou(patches.reshape(-1, 4).astype(float), boxes.astype(float))
        good = iou.min(axis=1).reshape(patches.shape[:2]) >= _LEAST_IOUS[:, None]
        found += [
            of[first] for of, first, any_ in zip(patches, good.argmax(1), good.any(1)) if any_
        ]
    top, left, bottom, right = map(int, found[rng.integers(len(found))])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ([top, left] <= centres) & (centres < [bottom, right])
    kept = numpy.flatnonzero(kept.all(axis=1))
    moved = boxes[kept] - [top, left, top, left]
    clipped = numpy.clip(moved, 0, [bottom - top, right - left] * 2).astype(boxes.dtype)
    return image.crop((left, top, right, bottom)), clipped, kept


def _candidate_patches(width, height, rng):
    """Draws patches: integers (least IoUs, trials, 4), each (top, left, bottom, right)."""
    shape = len(_LEAST_IOUS), _PATCH_TRIALS
    scale = rng.uniform(*_PATCH_SCALE, shape)
    # So that neither side is longer than the image's.
    aspect = rng.uniform(
        numpy.maximum(_PATCH_ASPECT[0], scale**2), numpy.minimum(_PATCH_ASPECT[1], scale**-2)
    )
    h = numpy.clip(height * scale / numpy.sqrt(aspect), 1, height).astype(int)
    w = numpy.clip(width * scale * numpy.sqrt(aspect), 1, width).astype(int)
    top = rng.integers(0, height - h, endpoint=True)
    left = rng.integers(0, width - w, endpoint=True)
    return numpy.stack([top, left, top + h, left + w], axis=2)


def box_iou(boxes, others):
    """Returns the intersection over union (IoU, Jaccard index) of each pair of boxes.

    The edges of a box are lines between pixels; PASCAL VOC's toolkit adds 1 to height and width.

    Args:
        boxes (numpy.ndarray): (m, 4), floats.
        others (numpy.ndarray): (n, 4), floats of the same unit and dtype.

    Returns:
        numpy.ndarray: (m, n), each 0 to 1; 0 where both boxes are empty.
    """
    # Coordinate by coordinate and in place: several times as fast as in three expressions.
    y_min, x_min, y_max, x_max = numpy.ascontiguousarray(boxes.T)[:, :, None]
    to_y_min, to_x_min, to_y_max, to_x_max = numpy.ascontiguousarray(others.T)[:, None]
    intersection = numpy.minimum(y_max, to_y_max)
    spare = numpy.maximum(y_min, to_y_min)
    intersection -= spare
    numpy.maximum(intersection, 0, out=intersection)
    widths = numpy.minimum(x_max, to_x_max)
    widths -= numpy.maximum(x_min, to_x_min, out=spare)
    numpy.maximum(widths, 0, out=widths)
    intersection *= widths
    areas = (y_max - y_min) * (x_max - x_min)
    union = numpy.add(areas, (to_y_max - to_y_min) * (to_x_max - to_x_min), out=spare)
    union -= intersection
    return numpy.divide(intersection, union, out=intersection, where=union > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """From pixels to a network's input: (pixels - mean) / std, in float32, rounded once.

    Attributes:
        mean: In units of pixels (0 to 255): one number a channel, or an array of an image's shape.
        std: The same; one number a channel.
        dtype (numpy.dtype): Of the result.
    """

    mean: Any
    std: Any
    dtype: Any

    def __call__(self, image):
        """Returns an image, of uint8 (channels, height, width) or Pillow's, normalized."""
        if not isinstance(image, numpy.ndarray):
            # A copy with the channels first, while it is small: NumPy is slow with them last.
            image = numpy.ascontiguousarray(numpy.asarray(image).transpose(2, 0, 1))
        normalized = numpy.subtract(image, _by_channel(self.mean), dtype=numpy.float32)
        normalized /= _by_channel(self.std)
        return normalized.astype(self.dtype, copy=False)


def _by_channel(values):
    values = numpy.asarray(values, numpy.float32)
    return values[:, None, None] if values.ndim == 1 else values


def pixel_statistics(counts):
    """Returns means and standard deviations of many images, each a tuple of a float a channel.

    ``counts``, of shape (channels, 256), are the pixels of each value. The deviation of a channel
    of one value is taken as 1, so that it can be divided by.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ _LEVELS
    variances = (shares * (_LEVELS - means[:, None]) ** 2).sum(axis=1)
    return tuple(means.tolist()), tuple(std or 1.0 for std in numpy.sqrt(variances).tolist())


def distort(image, rng, swap_rate=0.0):
    """Changes brightness, contrast, saturation and hue, as SSD is trained with.

    Liu et al. 2016, section 2.2, after Howard 2013; the ranges are those of the authors' released
    configuration. Each distortion happens with a probability of a half, but the channels of the
    RGB image change places at ``swap_rate``, since that configuration turns this off.
    """
    if coin_toss(rng):
        image = _brightness(image, rng)
    order = (_contrast, _saturation, _hue) if coin_toss(rng) else (_saturation, _hue, _contrast)
    for change in order:
        if coin_toss(rng):
            image = change(image, rng)
    if rng.random() < swap_rate:
        channels = image.split()
        image = Image.merge('RGB', [channels[i] for i in rng.permutation(3)])
    return image


def _brightness(image, rng):
    return image.point(_lookup_table(_LEVELS + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)) * 3)


def _contrast(image, rng):
    return image.point(_lookup_table(_LEVELS * rng.uniform(*_CONTRAST)) * 3)


def _saturation(image, rng):
    hue, saturation, value = image.convert('HSV').split()
    saturation = saturation.point(_lookup_table(_LEVELS * rng.uniform(*_SATURATION)))
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _hue(image, rng):
    # The circle has 256 steps.
    turn = round(rng.uniform(-_HUE_DEGREES, _HUE_DEGREES) / 360 * 256)
    hue, saturation, value = image.convert('HSV').split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _lookup_table(levels):
    return numpy.clip(numpy.rint(levels), 0, 255).astype(int).tolist()
