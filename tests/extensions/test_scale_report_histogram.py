"""``ScaleReport(histogram=True)``: the counts are right, and go on where they were."""

import csv
import os

import chainerlp
from chainerlp import policies
from chainerlp.extensions import ScaleReport

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, training
from chainer.training import extensions

NAMES = {
    'iteration', 'layer', 'layers', 'call', 'total_scale', 'zero', 'below', 'counts', 'above',
    'nan', 'exponents',
}  # fmt: skip


class TwiceUsed(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.first = L.Linear(None, 12)
            self.again = L.Linear(12, 12)
            self.last = L.Linear(12, 10)

    def forward(self, x):
        h = F.relu(self.first(x))
        return self.last(F.relu(self.again(F.relu(self.again(h)))))


def make_trainer(out, policy=None, trigger=(1, 'iteration'), dtype=chainer.mixed16, stop=8):
    shrink = 2.0**-15
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = L.Classifier(
            TwiceUsed(), lossfun=lambda y, t: F.softmax_cross_entropy(F.cast(y, 'f'), t) * shrink
        )
    x = numpy.random.standard_normal((32, 20)).astype('f' if dtype == 'f' else 'e')
    t = numpy.random.randint(0, 10, 32).astype('i')
    optimizer = optimizers.MomentumSGD(1.0)
    if policy is not None:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policy)
    optimizer.use_fp32_update()
    optimizer.setup(model)
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(x, t), 8)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (stop, 'iteration'), out=str(out))
    trainer.extend(ScaleReport(trigger=trigger, histogram=True))
    trainer.extend(extensions.snapshot(filename='at{.updater.iteration}'), trigger=(3, 'iteration'))
    return trainer


def arrays_of(out):
    with numpy.load(os.path.join(str(out), 'histogram.npz')) as file:
        return dict(file)


def rows_of(out):
    with open(os.path.join(str(out), 'scales.csv'), newline='') as file:
        return list(csv.DictReader(file))


def test_there_is_none_unless_it_is_asked_for(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.get_extension('ScaleReport')._with_histogram = False
    trainer.run()
    assert not os.path.exists(tmp_path / 'histogram.npz')


@pytest.mark.parametrize('policy', [None, policies.Measured()], ids=['plain', 'wrapped'])
def test_it_has_an_entry_for_each_line_of_the_csv(tmp_path, policy):
    make_trainer(tmp_path, policy, trigger=(2, 'iteration')).run()
    arrays = arrays_of(tmp_path)
    assert set(arrays) == NAMES
    assert arrays['exponents'].tolist() == list(range(-40, 17))
    rows = rows_of(tmp_path)
    assert arrays['iteration'].tolist() == [int(row['iteration']) for row in rows]
    assert arrays['layers'][arrays['layer']].tolist() == [row['layer'] for row in rows]
    assert arrays['call'].tolist() == [int(row['call']) for row in rows]
    assert arrays['total_scale'].tolist() == [float(row['total_scale']) for row in rows]
    assert arrays['counts'].shape == (len(rows), 56) and len(rows) == 4 * 3
    assert (arrays['total_scale'] > 1).any() == (policy is not None)


@pytest.mark.parametrize('policy', [None, policies.Measured()], ids=['plain', 'wrapped'])
def test_underflow_can_be_read_from_it_as_stored_and_unscaled(tmp_path, policy):
    make_trainer(tmp_path, policy).run()
    arrays = arrays_of(tmp_path)
    upper_ends = arrays['exponents'][1:]
    for i, row in enumerate(rows_of(tmp_path)):
        parts = ['zero', 'below', 'above', 'nan']
        size = arrays['counts'][i].sum() + sum(arrays[part][i] for part in parts)
        assert size in (8 * 12, 8 * 20)
        shift = numpy.log2(arrays['total_scale'][i])
        for column, lost_up_to in [('underflow', -25), ('underflow_unscaled', -25 + shift)]:
            lost = arrays['below'][i] + arrays['counts'][i, upper_ends <= lost_up_to].sum()
            assert lost / size == float(row[column])
    rates = [float(row['underflow_unscaled']) for row in rows_of(tmp_path)]
    assert max(rates) > 0.01


def test_it_counts_the_product_before_it_is_rounded(tmp_path):
    class Slow(chainer.FunctionHook):
        counts = []

        def backward_postprocess(self, function, in_data, out_grad):
            if function.label == 'LinearFunction' and function.inputs[0].requires_grad:
                gy, W = out_grad[0].astype('d'), in_data[1].astype('d')
                exponents = numpy.log2(numpy.abs(gy.dot(W))).ravel()
                self.counts.append(numpy.histogram(exponents, numpy.arange(-40, 17))[0])

    trainer = make_trainer(tmp_path)
    with Slow() as slow:
        trainer.run()
    # Float32 sums move some elements over the edge of a bin: fewer than one in a hundred.
    for mine, theirs in zip(arrays_of(tmp_path)['counts'].reshape(8, 3, 56), slow.counts[2::3]):
        assert numpy.abs(mine[0] - theirs).sum() <= 2


@pytest.mark.parametrize(
    'kind',
    [dict(dtype='f'), dict(policy=policies.Measured())],
    ids=['float32', 'wrapped'],
)
@pytest.mark.parametrize('stop', [3, 8], ids=['stopped', 'went on'])
def test_a_resumed_training_continues_it_without_gap_or_double(tmp_path, kind, stop):
    make_trainer(tmp_path / 'whole', trigger=(2, 'iteration'), **kind).run()
    make_trainer(tmp_path / 'resumed', trigger=(2, 'iteration'), stop=stop, **kind).run()
    trainer = make_trainer(tmp_path / 'resumed', trigger=(2, 'iteration'), **kind)
    chainer.serializers.load_npz(tmp_path / 'resumed' / 'at3', trainer)
    trainer.run()
    whole, resumed = arrays_of(tmp_path / 'whole'), arrays_of(tmp_path / 'resumed')
    assert set(whole) == set(resumed)
    for name in whole:
        numpy.testing.assert_array_equal(whole[name], resumed[name])


def test_an_older_file_is_replaced(tmp_path):
    for _ in range(2):
        make_trainer(tmp_path, trigger=(4, 'iteration')).run()
    assert arrays_of(tmp_path)['iteration'].tolist() == [4] * 3 + [8] * 3


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 half', b'what a user keeps here'])
def test_a_file_that_is_something_else_is_left_alone(tmp_path, content):
    (tmp_path / 'histogram.npz').write_bytes(content)
    with pytest.warns(RuntimeWarning, match='histogram.npz: not a file of histograms'):
        make_trainer(tmp_path, trigger=(4, 'iteration')).run()
    assert (tmp_path / 'histogram.npz').read_bytes() == content
    assert len(rows_of(tmp_path)) == 2 * 3
