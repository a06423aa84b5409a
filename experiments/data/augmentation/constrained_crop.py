"""A patch that has something to see (Liu et al. 2016, section 2.2).

One of these options, each as often as the others: the whole image; a patch that overlaps an object
by at least 0.1, 0.3, 0.5, 0.7 or 0.9 (intersection over union of patch and box); any patch.
"""

from experiments.overlap import overlaps

import numpy

# None is the whole image; 0 is any patch.
_OVERLAPS = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
# Sides, relative to the image's. In the paper, a patch has 0.1 to 1 of the image's size; the
# authors' configuration says 0.3 of its sides.
_SCALE = (0.3, 1.0)
_ASPECT = (0.5, 2.0)
_TRIALS = 50


def constrained_crop(image, boxes, rng):
    """Crops an image to a random patch.

    Of the patches drawn for an overlap, 50 at most, the first one is taken that overlaps at least
    one object enough and has the centre of one in it; if none has, the whole image stays. An image
    without boxes stays whole.

    Args:
        image (PIL.Image.Image): The image.
        boxes (numpy.ndarray): Its boxes, of shape (n, 4).
        rng (numpy.random.Generator): What draws.

    Returns:
        tuple: The patch; the boxes whose centres are in it, clipped to it; and their indices.
    """
    everything = image, boxes, numpy.arange(len(boxes))
    least = _OVERLAPS[rng.integers(len(_OVERLAPS))]
    if least is None or not len(boxes):
        return everything
    patches = _patches(*image.size, rng)
    has_centre = _has_centre(patches, boxes)
    overlap = overlaps(patches.astype(float), boxes.astype(float))
    good = has_centre.any(axis=1) & (overlap.max(axis=1) >= least)
    if not good.any():
        return everything
    chosen = int(good.argmax())
    top, left, bottom, right = patches[chosen].tolist()
    kept = numpy.flatnonzero(has_centre[chosen])
    clipped = numpy.clip(boxes[kept], [top, left, top, left], [bottom, right, bottom, right])
    clipped = (clipped - [top, left, top, left]).astype(boxes.dtype)
    return image.crop((left, top, right, bottom)), clipped, kept


def _patches(width, height, rng):
    """Draws patches: integers of shape (trials, 4), each (top, left, bottom, right)."""
    scale = rng.uniform(*_SCALE, _TRIALS)
    # So that neither side is longer than the image's.
    aspect = rng.uniform(
        numpy.maximum(_ASPECT[0], scale**2), numpy.minimum(_ASPECT[1], scale**-2), _TRIALS
    )
    h = numpy.maximum(1, height * scale / numpy.sqrt(aspect)).astype(int)
    w = numpy.maximum(1, width * scale * numpy.sqrt(aspect)).astype(int)
    h, w = numpy.minimum(h, height), numpy.minimum(w, width)
    top = rng.integers(0, height - h, endpoint=True)
    left = rng.integers(0, width - w, endpoint=True)
    return numpy.stack([top, left, top + h, left + w], axis=1)


def _has_centre(patches, boxes):
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    after = centres >= patches[:, None, :2]
    before = centres < patches[:, None, 2:]
    return (after & before).all(axis=2)
