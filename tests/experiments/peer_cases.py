"""The random cases that ``peers.json`` has the peers' results of."""

import numpy

SIDE = 300
CLASSES = 20


def boxes(rng, count, side=SIDE, smallest=8):
    """Float32 (count, 4), each (y_min, x_min, y_max, x_max)."""
    low = rng.uniform(0, side - smallest, (count, 2))
    high = rng.uniform(low + smallest, side)
    return numpy.concatenate([low, high], axis=1).astype(numpy.float32)


def objects(seed):
    """Boxes and labels of one image."""
    rng = numpy.random.RandomState(seed)
    count = rng.randint(1, 9)
    return boxes(rng, count), rng.randint(0, CLASSES, count).astype(numpy.int32)


def outputs(seed, count, batch=None):
    """What a trained network might say of boxes: locs, and confs with the background likely."""
    rng = numpy.random.RandomState(seed)
    shape = (count,) if batch is None else (batch, count)
    locs = rng.standard_normal((*shape, 4)).astype(numpy.float32)
    confs = rng.standard_normal((*shape, CLASSES + 1)).astype(numpy.float32)
    confs[..., 0] += 4
    return locs, confs


def detections(seed, images=6, classes=3):
    """Of each image: boxes, labels and scores found; boxes, labels and which are difficult."""
    rng = numpy.random.RandomState(seed)
    cases = []
    for _ in range(images):
        true = boxes(rng, 7)
        found = numpy.concatenate([true + rng.uniform(-9, 9, true.shape), boxes(rng, 9)])
        labels = rng.randint(0, classes, 7)
        guessed = numpy.concatenate([labels, rng.randint(0, classes, 9)])
        cases.append(
            (
                *(found.astype(numpy.float32), guessed, rng.uniform(0, 1, 16)),
                *(true, labels, rng.uniform(0, 1, 7) < 0.2),
            )
        )
    return cases


def label_maps(seed):
    """Predicted and true classes of pixels, -1 for void."""
    rng = numpy.random.RandomState(seed)
    true = rng.randint(-1, 5, (3, 20, 30))
    predicted = numpy.where(rng.uniform(0, 1, true.shape) < 0.6, true.clip(0), rng.randint(0, 5))
    return predicted.astype(numpy.int32), true.astype(numpy.int32)


def image(seed, side):
    """Float32 (2, 3, side, side), pixels from 0 to 255."""
    return numpy.random.RandomState(seed).uniform(0, 255, (2, 3, side, side)).astype('f')


def fill(named_params, seed=0):
    """Draws parameters, in an order that both peers have, on the scale of He et al."""
    rng = numpy.random.RandomState(seed)
    for _, param in named_params:
        if param.ndim > 1:
            deviation = (2 / numpy.prod(param.shape[1:])) ** 0.5
            param.array[...] = rng.standard_normal(param.shape) * deviation
        else:  # of a normalization or a bias
            param.array[...] = rng.uniform(0.5, 1, param.shape)
