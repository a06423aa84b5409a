"""ImageNet (ILSVRC), a folder of images for each class."""

import functools
import os

from experiments.config import bounded_file
from experiments.config.errors import DataError
from experiments.data import transforms
from experiments.data.dataset import Data, find_folder, first_of_each_class, read_lines
from experiments.data.images import EXTENSIONS, ReplaceDamaged, image_names, labelled_images
from experiments.data.randomness import Augmented

import numpy
from chainer.datasets import TransformDataset

_LAYOUT = (
    'a folder with train/<wnid>/*.JPEG, and val/<wnid>/*.JPEG or val/*.JPEG with a label file'
    ' (val_labels)'
)
_LABELS_LAYOUT = 'lines "name label", or one ILSVRC2012_ID a line'
_ORDER_LAYOUT = 'the official meta.mat, or one wnid a line in the order of the ILSVRC2012_IDs'


def transform(size, normalization, augment, example, rng=None):
    """Crops and normalizes an image, as in Goyal et al. 2017 (section 5.1).

    ``example`` is a pair of a Pillow image and class. With augmentation: a random sized crop,
    flipped with a probability of a half. Without: the shorter side is resized to 256 / 224 of the
    crop's, and the middle is cropped.
    """
    image, label = example
    if not augment:
        return normalization(transforms.center_crop(image, round(size * 256 / 224), size)), label
    image = normalization(transforms.random_sized_crop(image, size, rng))
    if transforms.coin_toss(rng):
        image = numpy.ascontiguousarray(transforms.flip(image))
    return image, label


def load(section, dtype):
    """Lists the images, (3, size, size) in the dtype; each is read when its turn comes.

    Classes are numbered in the order of the names of the folders of ``train``, as is usual. See
    :func:`experiments.data.load`.
    """
    folder = find_folder(section.folder, _LAYOUT)
    train = find_folder(os.path.join(folder, section.train), _LAYOUT)
    wnids = _subfolders(train)
    if not wnids:
        raise DataError(f'{train}: given no folder in it, allowed: {_LAYOUT}')
    number = {wnid: label for label, wnid in enumerate(wnids)}
    files = _in_class_folders(train, wnids, number)
    val = find_folder(os.path.join(folder, section.val), _LAYOUT)
    val_files = _validation(folder, val, section, number)
    mean = transforms.IMAGENET_MEAN
    std = transforms.IMAGENET_STD if section.normalization == 'channel' else (1.0, 1.0, 1.0)
    transformed = functools.partial(
        transform, section.size, transforms.Normalization(mean, std, dtype)
    )
    examples = _examples(*files, section.train_size, train, section.skip_damaged)
    val_examples = _examples(*val_files, section.test_size, val, section.skip_damaged)
    return Data(
        train=Augmented(examples, functools.partial(transformed, section.augment)),
        test=TransformDataset(val_examples, functools.partial(transformed, False)),
        shape=(3, section.size, section.size),
        classes=len(wnids),
        class_names=tuple(wnids),
        mean=mean,
    )


def _examples(paths, classes, size, where, skip_damaged):
    chosen = first_of_each_class(classes, size, where)
    examples = labelled_images([paths[i] for i in chosen], classes[chosen])
    return ReplaceDamaged(examples) if skip_damaged else examples


def _subfolders(folder):
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith('.'))


def _in_class_folders(folder, wnids, number):
    """Returns the paths of all images, a list, and their classes, an array."""
    paths, classes = [], []
    for wnid in wnids:
        below = os.path.join(folder, wnid)
        names = image_names(below, f'at least one that ends in {", ".join(EXTENSIONS)}')
        paths += [os.path.join(below, name) for name in names]
        classes += [number[wnid]] * len(names)
    return paths, numpy.array(classes, numpy.int32)


def _validation(folder, val, section, number):
    found = _subfolders(val)
    if found:
        unknown = [wnid for wnid in found if wnid not in number]
        if unknown:
            raise DataError(
                f'{os.path.join(val, unknown[0])}: given a class that {section.train} has not,'
                f' allowed: its {len(number)} folders ({next(iter(number))} ...)'
            )
        return _in_class_folders(val, found, number)
    names = image_names(val, _LAYOUT)
    if section.val_labels is None:
        raise DataError(f'{val}: given images without classes, allowed: {_LAYOUT}')
    labels = os.path.join(folder, section.val_labels)
    order = section.ilsvrc_classes and os.path.join(folder, section.ilsvrc_classes)
    names, classes = _read_label_file(labels, names, number, order)
    return [os.path.join(val, name) for name in names], classes


def _read_label_file(path, names, number, order):
    """Reads the classes of a flat folder of validation images.

    The file is one of

    - a line ``name label`` for each image, as Caffe's ``val.txt``; the label is a wnid, or the
      number of the class from 0. Images that it does not name are not used;
    - the official ``ILSVRC2012_validation_ground_truth.txt``: a line with an ILSVRC2012_ID for each
      image in the order of their names. The file ``order`` tells the wnids of these: the official
      ``meta.mat``, or a text file with the wnid of ID 1 in the first line, and so on.

    Returns the names of the images, a list, and their classes, int32.
    """
    lines = read_lines(path, _LABELS_LAYOUT)
    columns = {len(words) for _, words in lines}
    if columns == {2}:
        return _named_labels(path, lines, names, number)
    if columns != {1}:
        raise DataError(f'{path}: given {sorted(columns)} words a line, allowed: {_LABELS_LAYOUT}')
    if len(lines) != len(names):
        raise DataError(f'{path}: given {len(lines)} labels, allowed: {len(names)}, one an image')
    if order is None:
        raise DataError(f'{path}: given ILSVRC2012_IDs, which need ilsvrc_classes: {_ORDER_LAYOUT}')
    wnid_of = _wnids_by_id(order)
    classes = []
    for line, (word,) in lines:
        wnid = wnid_of.get(word)
        if wnid not in number:
            raise DataError(
                f'{path}, line {line}: given {word}, allowed: an ILSVRC2012_ID of {order} whose'
                f' wnid is one of the {len(number)} classes trained with'
            )
        classes.append(number[wnid])
    return names, numpy.array(classes, numpy.int32)


def _named_labels(path, lines, names, number):
    classes = len(number)
    number = {**number, **{str(label): label for label in range(classes)}}
    there, found = set(names), {}
    for line, (name, label) in lines:
        name = os.path.basename(name)
        if name not in there:
            raise DataError(f'{path}, line {line}: given {name}, allowed: an image of the folder')
        if name in found:
            raise DataError(f'{path}, line {line}: given {name} again, allowed: each image once')
        if label not in number:
            raise DataError(
                f'{path}, line {line}: given {label}, allowed: a wnid of the {classes} classes,'
                f' or 0 to {classes - 1}'
            )
        found[name] = number[label]
    return list(found), numpy.array(list(found.values()), numpy.int32)


def _wnids_by_id(path):
    """Returns the wnid of each ILSVRC2012_ID, a dict of strings."""
    if not path.endswith('.mat'):
        return {str(i): words[0] for i, (_, words) in enumerate(read_lines(path, _ORDER_LAYOUT), 1)}
    from scipy import io  # scikit-learn brings it; only this file needs it

    try:
        with bounded_file.open_file(path) as file:
            synsets = io.loadmat(file, squeeze_me=True, variable_names='synsets')['synsets']
        return {
            str(int(i)): str(wnid) for i, wnid in zip(synsets['ILSVRC2012_ID'], synsets['WNID'])
        }
    except OSError as error:
        raise DataError(f'{path}: {error.strerror or error}; it must be {_ORDER_LAYOUT}') from None
    except Exception as error:  # whatever a damaged file makes of its numbers
        raise DataError(
            f'{path}: damaged ({type(error).__name__}: {error}); it must be {_ORDER_LAYOUT}'
        ) from None
