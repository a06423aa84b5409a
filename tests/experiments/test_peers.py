"""Boxes, losses, metrics, augmentation and networks against ChainerCV and the authors' own code.

Their results on the random cases of ``peer_cases`` were worked out beforehand, by ChainerCV's
source of January 2020 (0.13.1) and github.com/kumasento/ada-loss of July 2020, and are in
``peers.json``. Where nothing else is said they are compared to 7 digits, which is what the file has
of a float32.
"""

import json
import pathlib

from experiments.data import transforms
from experiments.models.resnet import CIFARResNet, ImageNetResNet
from experiments.models.segnet import SegNetBasic
from experiments.models.ssd_boxes import GRIDS_300, GRIDS_512, BoxMatcher, default_boxes, detect
from experiments.tasks import metrics
from experiments.tasks.detection import multibox_loss
from tests.experiments import peer_cases

import chainer
import numpy
import pytest
from PIL import Image

PEERS = json.loads(pathlib.Path(__file__).with_name('peers.json').read_text())
# Of a number of float32 both its own rounding and that of what is written down.
SAME = dict(rtol=2e-6, atol=1e-6)


def each(key):
    return pytest.mark.parametrize(('seed', 'theirs'), list(enumerate(PEERS[key])))


def assert_drawn_alike(ours, theirs, deviations=4):
    """The means of two samples are within so many standard deviations of their difference.

    Of some 40 comparisons one is off by 4 with a probability of 0.3 %; the seeds are fixed.
    """
    mean, error = theirs
    own_error = numpy.std(ours) / len(ours) ** 0.5
    assert abs(numpy.mean(ours) - mean) < deviations * (error**2 + own_error**2) ** 0.5


@pytest.mark.parametrize(('size', 'grids'), [('300', GRIDS_300), ('512', GRIDS_512)])
def test_default_boxes(size, grids):
    theirs, ours = PEERS['default_boxes'][size], default_boxes(grids)
    assert len(ours) == theirs['count']
    numpy.testing.assert_allclose(ours.astype(float).mean(axis=0), theirs['mean'], **SAME)
    numpy.testing.assert_allclose(ours[::997].ravel(), theirs['some'], **SAME)


@each('encode')
def test_objects_are_matched_and_encoded(seed, theirs):
    matcher = BoxMatcher(default_boxes(GRIDS_300))
    _, locs, labels = matcher((None, *peer_cases.objects(seed)))
    found = numpy.flatnonzero(labels)
    assert found.tolist() == theirs['boxes'] and labels[found].tolist() == theirs['labels']
    # A sum of some tens of numbers of either sign, up to 10 each.
    numpy.testing.assert_allclose(locs[found].astype(float).sum(axis=0), theirs['locs'], atol=1e-4)


@each('decode')
def test_boxes_are_detected(seed, theirs):
    defaults = default_boxes(GRIDS_300)
    found = detect(*peer_cases.outputs(seed, len(defaults)), defaults, peer_cases.SIDE)
    # Theirs is asked for scores from 0.2 on. What of ours has a lower one suppresses none of them.
    assert numpy.count_nonzero(found.scores >= 0.2) == theirs['count']
    best = slice(len(theirs['labels']))
    assert found.labels[best].tolist() == theirs['labels']
    numpy.testing.assert_allclose(found.scores[best], theirs['scores'], **SAME)
    # exp() of two libraries, on sides of some hundred pixels.
    numpy.testing.assert_allclose(found.boxes[best].ravel(), theirs['boxes'], rtol=1e-5, atol=1e-3)


@each('loss')
def test_the_multibox_loss(seed, theirs):
    defaults = default_boxes(GRIDS_300)
    matcher = BoxMatcher(defaults)
    # Those of 4 are left out: two default boxes tie but for the last digit of their IoU.
    cases = map(peer_cases.objects, ((0, 1), (2, 3), (5, 6))[seed])
    _, locs, labels = zip(*(matcher((None, *case)) for case in cases))
    predicted = peer_cases.outputs(10 + seed, len(defaults), batch=2)
    parts = multibox_loss(*map(chainer.Variable, predicted), numpy.stack(locs), numpy.stack(labels))
    # Float32 sums over 17,464 boxes, in another order: some units in the last place.
    numpy.testing.assert_allclose([part.array for part in parts], theirs, rtol=1e-5)


@each('detection')
def test_average_precision(seed, theirs):
    images = peer_cases.detections(seed // 2)
    found = []
    for label in range(3):
        parts = [
            metrics.match_detections(
                boxes[guessed == label], scores[guessed == label], *of_label(true, labels, label, d)
            )
            for boxes, guessed, scores, true, labels, d in images
        ]
        matches = metrics.concatenate_matches(parts)
        found.append(metrics.average_precision(matches, theirs['eleven_point']))
    numpy.testing.assert_allclose(found, theirs['ap'], rtol=1e-6)
    assert metrics.mean_of_present(found) == pytest.approx(theirs['map'])


def of_label(boxes, labels, label, difficult):
    return boxes[labels == label], difficult[labels == label]


@each('segmentation')
def test_intersection_over_union(seed, theirs):
    counts = metrics.confusion_matrix(*peer_cases.label_maps(seed), 5)
    numpy.testing.assert_allclose(metrics.ious(counts), theirs['iou'], rtol=1e-6)
    assert metrics.miou(counts) == pytest.approx(theirs['miou'])
    assert metrics.pixel_accuracy(counts) == pytest.approx(theirs['pixel_accuracy'])
    assert metrics.class_accuracy(counts) == pytest.approx(theirs['class_accuracy'])


@each('crop')
def test_constrained_crops_are_drawn_alike(seed, theirs):
    boxes, _ = peer_cases.objects(30 + seed)
    image, rng = Image.new('RGB', (300, 300)), numpy.random.default_rng(0)
    crops = [transforms.constrained_crop(image, boxes, rng) for _ in range(2000)]
    sizes = [patch.size for patch, _, _ in crops]
    assert_drawn_alike([size == (300, 300) for size in sizes], theirs['whole'])
    assert_drawn_alike([width * height / 300**2 for width, height in sizes], theirs['area'])
    assert_drawn_alike([len(kept) for _, _, kept in crops], theirs['kept'])


@each('distort')
def test_colours_are_distorted_alike(seed, theirs):
    image, rng = Image.new('RGB', (1, 1), tuple(theirs['colour'])), numpy.random.default_rng(seed)
    pixels = numpy.array([transforms.distort(image, rng).getpixel((0, 0)) for _ in range(4000)])
    for channel in range(3):
        mean, error = theirs['mean'][channel]
        # Theirs cuts off what is behind the point, three times at most: up to 1.5 less on average.
        assert -4 * error - 0.5 < pixels[:, channel].mean() - mean < 4 * error + 1.5
    # Of 4,000 numbers the deviation is off by 1.1 % (one of its own), of their 6,000 by 0.9 %.
    numpy.testing.assert_allclose(pixels.std(axis=0), theirs['deviation'], rtol=0.06)


def test_sized_crops_are_drawn_alike():
    rng = numpy.random.default_rng(0)
    patches = (transforms.draw_patch(120, 90, rng) for _ in range(3000))
    areas = [(right - left) * (bottom - top) / 10800 for left, top, right, bottom in patches]
    # Theirs cuts sides to whole pixels: on average half of one of some 60, 1.5 % of the area.
    mean, error = PEERS['sized_crop']
    assert_drawn_alike(numpy.array(areas) - 0.01 * mean, (mean, error))


def test_segnet():
    model = SegNetBasic(5)
    peer_cases.fill(sorted(model.namedparams()))
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        logits = model(peer_cases.image(0, 32)).array[:, :, ::9, ::9].ravel()
    theirs = numpy.array(PEERS['segnet'])
    # Nine layers of float32 sums of up to 3136 products each.
    numpy.testing.assert_allclose(logits, theirs, rtol=0, atol=1e-4 * theirs.std())


@pytest.mark.parametrize('name', PEERS['resnet'])
def test_the_residual_networks_of_the_authors(name):
    kind, depth = name.split()
    build, side = (CIFARResNet, 32) if kind == 'cifar' else (ImageNetResNet, 64)
    model, theirs = build(int(depth), 7, variant='zhao'), PEERS['resnet'][name]
    assert model.count_params() == theirs['parameters']
    peer_cases.fill(sorted(model.namedparams()))
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        logits = model(peer_cases.image(1, side) / 64).array.ravel()
    expected = numpy.array(theirs['logits'])
    # Up to fifty layers of float32 sums of up to 4608 products each.
    numpy.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * expected.std())
