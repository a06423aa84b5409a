"""CamVid (Brostow et al. 2009), as prepared for SegNet: 11 classes and void, a file a frame."""

import functools
import itertools
import os

from experiments.config.errors import DamagedImageError, DataError
from experiments.data import images, transforms
from experiments.data.dataset import Data, find_folder, first_examples, read_lines
from experiments.data.randomness import Augmented

import numpy
from chainer.datasets import TransformDataset

_CLASS_NAMES = tuple(
    'sky building pole road pavement tree sign fence car pedestrian cyclist'.split()
)
_VOID = len(_CLASS_NAMES)
_LAYOUT = (
    'a folder with train.txt and test.txt (each line an image and its label image), or with the'
    ' folders train, trainannot, test and testannot'
)


def read_frame(files):
    """Reads a pair of files: a Pillow image, and the class of each pixel, -1 for void.

    Raises:
        DamagedImageError: If one of them cannot be decoded, or they do not fit.
    """
    image_file, label_file = files
    image, labels = images.read_image(image_file), images.read_labels(label_file)
    if labels.shape != image.size[::-1]:
        raise DamagedImageError(
            f'{label_file}: given {_by(labels.shape)} pixels, allowed: those of'
            f' {image_file}, {_by(image.size[::-1])}'
        )
    if labels.max() > _VOID:
        raise DamagedImageError(
            f'{label_file}: given class {labels.max()}, allowed: 0 to {_VOID - 1},'
            f' and {_VOID} for void'
        )
    labels = labels.astype(numpy.int32)
    return image, numpy.where(labels == _VOID, -1, labels)


def transform(normalization, crop, flip, example, rng=None):
    """Normalizes an image and, if asked for, crops it (to a height and width) and flips it.

    ``example`` is a pair of a Pillow image and the class of each pixel, which goes with it.
    """
    image, labels = normalization(example[0]), example[1]
    if crop is not None:
        height, width = crop
        top = rng.integers(0, labels.shape[0] - height, endpoint=True)
        left = rng.integers(0, labels.shape[1] - width, endpoint=True)
        window = numpy.s_[..., top : top + height, left : left + width]
        image, labels = image[window], labels[window]
    if flip and transforms.coin_toss(rng):
        image, labels = transforms.flip(image), transforms.flip(labels)
    return numpy.ascontiguousarray(image), numpy.ascontiguousarray(labels)


def load(section, dtype):
    """Lists the frames; those to train with are read once, for class weights and statistics.

    ``normalization`` is by mean and standard deviation of each channel over the frames trained with
    (``data``), by those of ImageNet (``imagenet``), or left out (``none``: pixels stay 0 to 255).
    The class weights are by median frequency. See :func:`experiments.data.load`.
    """
    folder = find_folder(section.folder, _LAYOUT)
    train = _frames(folder, section.train, section.train_size, section.skip_damaged)
    test = _frames(folder, section.test, section.test_size, section.skip_damaged)
    sizes, counts, weights = _survey(train)
    size = _size(sizes, section.crop, folder)
    mean, std = {
        'data': transforms.pixel_statistics(counts),
        'imagenet': (transforms.IMAGENET_MEAN, transforms.IMAGENET_STD),
        'none': (None, None),
    }[section.normalization]
    normalization = transforms.Normalization(mean or (0, 0, 0), std or (1, 1, 1), dtype)
    augment = functools.partial(transform, normalization, section.crop, section.augment)
    return Data(
        train=Augmented(train, augment),
        test=TransformDataset(test, functools.partial(transform, normalization, None, False)),
        shape=(3, *size),
        classes=len(_CLASS_NAMES),
        class_names=_CLASS_NAMES,
        class_weights=weights,
        mean=mean,
    )


def _frames(folder, split, size, skip_damaged):
    listing = os.path.join(folder, f'{split}.txt')
    pairs = _listed(folder, listing) if os.path.exists(listing) else _found(folder, split)
    for path in itertools.chain(*pairs):
        if not os.path.exists(path):
            raise DataError(f'{path}: missing; allowed: {_LAYOUT}')
    pairs = first_examples(pairs, size, f'{folder}: {split}')
    frames = TransformDataset(pairs, read_frame)
    return images.ReplaceDamaged(frames) if skip_damaged else frames


def _listed(folder, listing):
    """Reads a list of pairs; of its paths, which start on another machine, the ends are taken."""
    pairs = []
    for line, words in read_lines(listing, 'lines of an image and its label image'):
        parts = [word.split('/')[-2:] for word in words]
        if [len(part) for part in parts] != [2, 2]:
            raise DataError(
                f'{listing}, line {line}: given {" ".join(words)!r}, allowed:'
                ' train/NAME.png trainannot/NAME.png'
            )
        pairs.append(tuple(os.path.join(folder, *part) for part in parts))
    return pairs


def _found(folder, split):
    below = find_folder(os.path.join(folder, split), _LAYOUT)
    names = images.image_names(below, _LAYOUT)
    annotated = os.path.join(folder, f'{split}annot')
    return [(os.path.join(below, name), os.path.join(annotated, name)) for name in names]


def _survey(frames):
    """Returns the frames' sizes, how many pixels have each value, and the class weights."""
    sizes, counts, of_classes = [], 0, []
    for image, labels in frames:
        sizes.append(labels.shape)
        counts = counts + numpy.array(image.histogram()).reshape(3, 256)
        of_classes.append(numpy.bincount(labels[labels >= 0], minlength=_VOID))
    weights = median_frequency_weights(numpy.array(of_classes), numpy.prod(sizes, axis=1))
    return set(sizes), counts, weights


def _size(sizes, crop, folder):
    """Returns height and width of the examples to train with, which must be all the same."""
    if crop is None:
        if len(sizes) > 1:
            raise DataError(
                f'{folder}: given training frames of {" and ".join(map(_by, sorted(sizes)))}'
                ' pixels, allowed: one size for all, or a crop'
            )
        return sizes.pop()
    smallest = tuple(map(min, zip(*sizes)))
    if crop[0] > smallest[0] or crop[1] > smallest[1]:
        raise DataError(
            f'{folder}: given a crop of {_by(crop)} pixels, allowed: at most {_by(smallest)},'
            ' the smallest training frame'
        )
    return tuple(crop)


def _by(size):
    return ' x '.join(map(str, size))


def median_frequency_weights(pixels, sizes):
    """Returns class weights by median frequency: rare classes count as much as common ones.

    weight of c = median of all frequencies / frequency of c; frequency of c = pixels of c / pixels
    of the images in which c is, void ones included (Eigen and Fergus 2015; Badrinarayanan et al.
    2017, section 4.1).

    Args:
        pixels (numpy.ndarray): (images, classes): pixels of each class in each image.
        sizes (numpy.ndarray): (images,): pixels of each image.

    Returns:
        numpy.ndarray: (classes,) in float32. A class that is nowhere weighs 0 and has no part in
        the median.
    """
    of_class = pixels.sum(axis=0)
    of_images = ((pixels > 0) * sizes[:, None]).sum(axis=0)
    found = of_class > 0
    result = numpy.zeros(len(of_class), numpy.float32)
    if found.any():
        frequency = of_class[found] / of_images[found]
        result[found] = numpy.median(frequency) / frequency
    return result
