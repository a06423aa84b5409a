"""What policies expect, and which scale would do, is written beside what underflows."""

import csv
import math
import pathlib
import signal

from chainerlp.extensions import files
from chainerlp.policies.bounds import bounded
from experiments.reports.run_files import PredictionRow, UnboundedRow
from experiments.run.predictions import Predictions

import chainer
import numpy
import pytest
from chainer import training

TINY = ('-o', 'report.predictions=true', '-o', 'report.interval=2')


def read(path):
    return files.read(str(path), PredictionRow)


class TwoLayers(chainer.Chain):
    """Whose loss hands the second layer the gradient ``gy``, whatever comes in.

    That is a convolution where gy and W are of one.
    """

    def __init__(self, gy, W):
        super().__init__()
        self.gy, (n_out, n_in, *kernel) = gy, W.shape
        self.size = tuple(o + k - 1 for o, k in zip(gy.shape[2:], kernel))
        with self.init_scope():
            self.first = chainer.links.Linear(4, n_in * math.prod(self.size))
            layer = chainer.links.Convolution2D if kernel else chainer.links.Linear
            self.second = layer(n_in, n_out, *kernel[:1], initialW=W)

    def forward(self, x):
        h = self.first(x)
        h = h.reshape(len(h), -1, *self.size)
        return chainer.functions.sum(self.second(h) * self.gy)


@pytest.fixture
def row(tmp_path):
    """Trains for one iteration with a gradient that is known; returns what is written of it."""

    def train(gy, W, threshold):
        model = TwoLayers(gy, W)
        optimizer = chainer.optimizers.SGD(0.1).setup(model)
        batches = chainer.iterators.SerialIterator(list(numpy.ones((len(gy), 4), 'f')), len(gy))
        updater = training.updaters.StandardUpdater(batches, optimizer)
        trainer = training.Trainer(updater, (1, 'iteration'), str(tmp_path))
        trainer.extend(Predictions(1, threshold))
        trainer.run()
        (only,) = read(tmp_path / 'predictions.csv')
        return only

    return train


@pytest.mark.parametrize('threshold', [1e-3, 0.03, 0.3])
def test_the_wanted_scale_loses_no_more_than_is_accepted_and_half_of_it_does(row, threshold):
    random = numpy.random.RandomState(0)
    gy = (random.randn(64, 64) * 2.0 ** random.uniform(-40, -20, (64, 1))).astype(numpy.float32)
    W = random.randn(64, 128).astype(numpy.float32)
    product = gy.astype(numpy.float64) @ W
    found = row(gy, W, threshold)

    def lost(scale):
        return (abs(product) * scale <= 2**-25).mean()

    assert (found.iteration, found.layer, found.call) == (1, '/second', 0)
    assert found.underflow == lost(1)
    assert lost(found.wanted) <= threshold < lost(found.wanted / 2)
    assert found.wanted == 2.0 ** round(math.log2(found.wanted))
    most = abs(product).max()
    assert most * found.largest <= 65504 < most * found.largest * 2
    # Five standard deviations: over 300 seeds the difference's is 0.0022.
    assert found.per_sample == pytest.approx(found.underflow, abs=0.011)
    assert found.gaussian < found.per_sample / 3


def test_what_is_expected_of_a_convolution_looks_at_its_positions(row):
    random = numpy.random.RandomState(0)
    sizes = 2.0 ** random.uniform(-40, -20, (16, 1, 6, 6))
    gy = (random.randn(16, 8, 6, 6) * sizes).astype(numpy.float32)
    found = row(gy, random.randn(8, 12, 3, 3).astype(numpy.float32), 1e-3)
    assert 0.2 < found.underflow < 0.4
    # Five standard deviations: over 200 seeds the difference's is 0.0023.
    assert found.per_sample == pytest.approx(found.underflow, abs=0.012)
    assert found.gaussian < found.per_sample / 3


def test_what_loses_nothing_at_any_scale_wants_none(row):
    found = row(numpy.zeros((4, 3), numpy.float32), numpy.ones((3, 5), numpy.float32), 1e-3)
    assert (found.underflow, found.gaussian, found.per_sample) == (0, 0, 0)
    assert math.isnan(found.wanted) and math.isnan(found.largest)


def test_a_gradient_that_is_not_finite_wants_none(row):
    gy = numpy.full((4, 3), math.inf, numpy.float32)
    found = row(gy, numpy.ones((3, 5), numpy.float32), 1e-3)
    assert math.isnan(found.wanted) and math.isnan(found.largest)


@pytest.mark.parametrize('method', ['fp32', 'adaptive'])
def test_it_has_a_row_for_each_that_is_measured_and_changes_nothing(cli, tiny, tmp_path, method):
    out = tmp_path / 'out' / 'tiny' / f'{method}-seed=0'
    others = ('-o', 'report.gradient_error=2', '-o', 'report.interval=1')
    others += ('-o', f'scaling={{method: {method}}}')
    assert cli('train', tiny, *others)[0] == 0
    without = {name: (out / name).read_bytes() for name in ('scales.csv', 'gradient_error.csv')}
    assert not (out / 'predictions.csv').exists()
    assert cli('train', tiny, *others, '-o', 'report.predictions=true', '--fresh')[0] == 0
    assert {name: (out / name).read_bytes() for name in without} == without
    scales, predictions = files.read(str(out / 'scales.csv')), read(out / 'predictions.csv')
    assert len(scales) == 8 and not any(row.call for row in predictions)
    assert [row[:3] for row in scales] == [row[:3] for row in predictions]
    for measured, predicted in zip(scales, predictions):
        assert predicted.underflow == measured.underflow
        if measured.underflow <= 1e-3:
            assert predicted.wanted <= measured.total_scale
        assert predicted.wanted <= predicted.largest


@pytest.mark.parametrize('way', ['{method: fixed, scale: 1024}', '{method: per_sample}'])
def test_scales_are_total_ones(cli, tiny, tmp_path, way):
    """What a layer wants is as much, however it is scaled now: the first pass is the same."""
    wanted = []
    for scaling in ('{method: none}', way):
        options = ('-o', f'scaling={scaling}', '-o', 'report.predictions=true', '--fresh')
        assert cli('train', tiny, *options, '-o', 'train.max_iterations=1')[0] == 0
    for path in sorted(pathlib.Path(tmp_path / 'out' / 'tiny').glob('*/predictions.csv')):
        wanted.append([(row.layer, row.wanted, row.largest) for row in read(path)])
    assert len(wanted) == 2 and wanted[0] == wanted[1]


def test_a_run_that_was_interrupted_goes_on_in_its_file(cli, tiny, tmp_path, signalled):
    out = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'predictions.csv'
    assert cli('train', tiny, *TINY)[0] == 0
    whole = out.read_bytes()
    assert {row['iteration'] for row in csv.DictReader(whole.decode().splitlines())} == {'2', '4'}
    signalled(3, signal.SIGTERM)
    assert cli('train', tiny, *TINY, '--fresh')[0] == 143
    assert 0 < len(out.read_bytes()) < len(whole)
    assert cli('train', tiny, *TINY)[0] == 0
    assert out.read_bytes() == whole


def test_a_float32_model_that_rounds_factors_has_none(cli, tiny, tmp_path):
    way = 'scaling={method: amax, dtype: float32, compute: float16, label: compute}'
    assert cli('train', tiny, *TINY, '-o', way)[0] == 0
    assert not (tmp_path / 'out' / 'tiny' / 'compute-seed=0' / 'predictions.csv').exists()


def test_scales_without_bounds_are_what_the_applied_ones_were_before_they_were_bounded(
    cli, tiny, tmp_path
):
    knobs = ('-o', 'scaling.threshold=1e-7', '-o', 'scaling.max_scale=4')
    assert cli('train', tiny, *TINY, *knobs)[0] == 0
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-max_scale=4-threshold=1e-07-seed=0'
    found = files.read(str(folder / 'unbounded.csv'), UnboundedRow)
    applied = files.read(str(folder / 'scales.csv'))
    assert [row[:3] for row in found] == [row[:3] for row in applied]
    assert any(row.unbounded > 4 for row in found)
    for row, scales in zip(found, applied):
        carried = scales.total_scale / scales.scale
        assert row.scale == scales.scale == bounded(row.unbounded, carried, 4, 1024, True)


def test_ways_without_policies_have_no_scales_without_bounds(cli, tiny, tmp_path):
    assert cli('train', tiny, *TINY, '-o', 'scaling={method: fixed, scale: 8}')[0] == 0
    assert not list(tmp_path.rglob('unbounded.csv')) and list(tmp_path.rglob('predictions.csv'))
