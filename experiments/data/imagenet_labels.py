"""The label file of a flat folder of ImageNet's validation images.

It is one of

- a line ``name label`` for each image, as Caffe's ``val.txt``; the label is a wnid, or the number
  of the class from 0 in the order of the wnids. What is in the file is used; images that it does
  not name are not;
- the official ``ILSVRC2012_validation_ground_truth.txt``: a line with an ILSVRC2012_ID, counted
  from 1, for each image in the order of their names. That order of the classes is another than the
  wnids', and a second file must tell it: the official ``meta.mat`` beside it, or a text file
  with the wnid of ID 1 in the first line, and so on.
"""

import os

from experiments.data import layout
from experiments.errors import DataError

import numpy

_LAYOUT = 'lines "name label", or one ILSVRC2012_ID a line'
_ORDER = 'the official meta.mat, or one wnid a line in the order of the ILSVRC2012_IDs'


def read(path, names, wnids, order=None):
    """Reads the classes of the validation images.

    Args:
        path (str): The label file.
        names (list of str): Names of the image files that there are, sorted.
        wnids (list of str): The classes.
        order (str): The file that tells the order of the ILSVRC2012_IDs.

    Returns:
        tuple: Names of the image files, a list, and their classes, int32.

    Raises:
        DataError: If the file is not as it must be, or does not fit to the images.
    """
    lines = layout.lines(path, _LAYOUT)
    columns = {len(words) for _, words in lines}
    if columns == {2}:
        return _named(path, lines, names, wnids)
    if columns != {1}:
        raise DataError(f'{path}: given {sorted(columns)} words a line, allowed: {_LAYOUT}')
    if len(lines) != len(names):
        raise DataError(f'{path}: given {len(lines)} labels, allowed: {len(names)}, one an image')
    if order is None:
        raise DataError(f'{path}: given ILSVRC2012_IDs, which need ilsvrc_classes: {_ORDER}')
    number = {wnid: label for label, wnid in enumerate(wnids)}
    wnid_of = _order(order)
    classes = []
    for line, (word,) in lines:
        wnid = wnid_of.get(word)
        if wnid not in number:
            raise DataError(
                f'{path}, line {line}: given {word}, allowed: an ILSVRC2012_ID of {order} whose'
                f' wnid is one of the {len(wnids)} classes trained with'
            )
        classes.append(number[wnid])
    return names, numpy.array(classes, numpy.int32)


def _named(path, lines, names, wnids):
    number = {wnid: label for label, wnid in enumerate(wnids)}
    number.update({str(label): label for label in range(len(wnids))})
    there, found = set(names), {}
    for line, (name, label) in lines:
        name = os.path.basename(name)
        if name not in there:
            raise DataError(f'{path}, line {line}: given {name}, allowed: an image of the folder')
        if name in found:
            raise DataError(f'{path}, line {line}: given {name} again, allowed: each image once')
        if label not in number:
            raise DataError(
                f'{path}, line {line}: given {label}, allowed: a wnid of the {len(wnids)} classes,'
                f' or 0 to {len(wnids) - 1}'
            )
        found[name] = number[label]
    return list(found), numpy.array(list(found.values()), numpy.int32)


def _order(path):
    """Returns the wnid of each ILSVRC2012_ID, a dict of strings."""
    if not path.endswith('.mat'):
        return {str(i): words[0] for i, (_, words) in enumerate(layout.lines(path, _ORDER), 1)}
    from scipy import io  # scikit-learn brings it; only this file needs it

    try:
        synsets = io.loadmat(path, squeeze_me=True)['synsets']
        return {
            str(int(i)): str(wnid) for i, wnid in zip(synsets['ILSVRC2012_ID'], synsets['WNID'])
        }
    except OSError as error:
        raise DataError(f'{path}: {error.strerror or error}; it must be {_ORDER}') from None
    except Exception as error:  # whatever a damaged file makes of its numbers
        raise DataError(
            f'{path}: damaged ({type(error).__name__}: {error}); it must be {_ORDER}'
        ) from None
