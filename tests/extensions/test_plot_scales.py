"""PlotScales draws, on any trainer, what ScaleReport wrote, and never stops a training."""

import os
import subprocess
import sys

import chainerlp
from chainerlp import policies
from chainerlp.extensions import PlotScales, ScaleReport, files, pictures

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, training
from matplotlib.figure import Figure
from PIL import Image

ALWAYS = ['scales.png', 'underflow.png', 'layers.png']


@pytest.fixture
def drawn(monkeypatch):
    """Stands in for the drawing, which is slow; lists what is drawn from what."""
    calls = []

    def stand_in(name):
        def draw(*args):
            calls.append((name, *args))
            return Figure((1, 1))

        return draw

    for name in ('scales', 'underflow', 'layers', 'histogram'):
        monkeypatch.setattr(pictures, name, stand_in(name))
    return calls


def make_trainer(out, iterations=4, policy=None, histogram=False, report=True, dtype='f'):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        net = chainer.Sequential(L.Linear(None, 12), F.relu, L.Linear(None, 12), F.relu)
        net.append(L.Linear(None, 10))
        model = L.Classifier(net, lossfun=lambda y, t: F.softmax_cross_entropy(F.cast(y, 'f'), t))
    x = numpy.random.standard_normal((32, 20)).astype('f' if dtype == 'f' else 'e')
    t = numpy.random.randint(0, 10, 32).astype('i')
    optimizer = optimizers.MomentumSGD(0.1)
    if policy is not None:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policy)
    optimizer.setup(model)
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(x, t), 8)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (iterations, 'iteration'), out=str(out))
    if report:
        trainer.extend(ScaleReport(trigger=(1, 'iteration'), histogram=histogram))
    return trainer


@pytest.mark.parametrize('histogram', [False, True])
def test_the_pictures_lie_in_the_output_folder(tmp_path, histogram):
    trainer = make_trainer(
        tmp_path, policy=policies.Amax(), histogram=histogram, dtype=chainer.mixed16
    )
    trainer.extend(PlotScales())
    trainer.run()
    expected = {*ALWAYS, 'scales.csv', *(['histogram.png', 'histogram.npz'] if histogram else [])}
    assert set(os.listdir(tmp_path)) == expected
    for name in expected:
        if name.endswith('.png'):
            with Image.open(tmp_path / name) as image:
                image.load()
                assert min(image.size) > 300


def test_the_training_is_the_same_with_it(tmp_path, drawn):
    weights = []
    for extension in (None, PlotScales()):
        trainer = make_trainer(tmp_path)
        if extension is not None:
            trainer.extend(extension, trigger=(1, 'iteration'))
        trainer.run()
        params = trainer.updater.get_optimizer('main').target.params()
        weights.append([param.array.copy() for param in params])
    for without, with_it in zip(*weights):
        numpy.testing.assert_array_equal(without, with_it)


def test_it_draws_at_its_trigger_all_that_has_been_reported(tmp_path, drawn):
    trainer = make_trainer(tmp_path)
    trainer.extend(PlotScales(), trigger=(2, 'iteration'))
    trainer.run()
    seen = [{row.iteration for row in rows} for name, rows, *_ in drawn if name == 'scales']
    assert seen == [{1, 2}, {1, 2, 3, 4}]


def test_a_resumed_run_is_drawn_as_a_whole(tmp_path, drawn):
    trainer = make_trainer(tmp_path, 2)
    trainer.run()
    chainer.serializers.save_npz(tmp_path / 'snapshot.npz', trainer)
    trainer = make_trainer(tmp_path, 4)
    chainer.serializers.load_npz(tmp_path / 'snapshot.npz', trainer)
    trainer.extend(PlotScales(), trigger=(4, 'iteration'))
    trainer.run()
    _, rows = drawn[0]
    assert [row.iteration for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    'policy, given, expected',
    [
        (None, None, None),
        (policies.Measured(threshold=0.02), None, 0.02),
        (policies.Amax(), None, None),
        (policies.Measured(threshold=0.02), 0.5, 0.5),
    ],
    ids=['no policy', 'the policy’s', 'a policy without', 'given'],
)
def test_the_threshold_that_is_marked(tmp_path, drawn, policy, given, expected):
    trainer = make_trainer(tmp_path, policy=policy)
    trainer.extend(PlotScales(threshold=given))
    trainer.run()
    assert [threshold for _, _, *threshold in drawn] == [[], [expected], [expected]]


def test_without_a_scale_report_it_warns_of_what_is_missing(tmp_path, drawn):
    trainer = make_trainer(tmp_path, report=False)
    trainer.extend(PlotScales())
    with pytest.warns(RuntimeWarning, match=r'from .*scales.csv: No such file.*ScaleReport'):
        trainer.run()
    assert drawn == []


def test_a_damaged_report_is_a_warning(tmp_path, drawn):
    files.start(tmp_path / 'scales.csv', 1)
    with open(tmp_path / 'scales.csv', 'ab') as file:
        file.write(b'\xff\n')
    trainer = make_trainer(tmp_path, report=False)
    trainer.extend(PlotScales())
    with pytest.warns(RuntimeWarning, match=r'from .*scales.csv: line 2 is not iteration'):
        trainer.run()
    assert drawn == []


def test_an_empty_report_is_no_picture(tmp_path, drawn):
    files.start(tmp_path / 'scales.csv', 1)
    trainer = make_trainer(tmp_path, report=False)
    trainer.extend(PlotScales())
    trainer.run()
    assert drawn == []


def test_another_name_of_the_csv_file(tmp_path, drawn):
    trainer = make_trainer(tmp_path, report=False)
    trainer.extend(ScaleReport('mine.csv', trigger=(1, 'iteration')))
    trainer.extend(PlotScales('mine.csv'))
    trainer.run()
    assert [name for name, *_ in drawn] == ['scales', 'underflow', 'layers']


def test_a_picture_that_cannot_be_drawn_or_written_is_a_warning(tmp_path, drawn, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError('no way')

    (tmp_path / 'scales.png').mkdir()
    monkeypatch.setattr(pictures, 'underflow', fail)
    trainer = make_trainer(tmp_path)
    trainer.extend(PlotScales())
    with pytest.warns(RuntimeWarning) as caught:
        trainer.run()
    messages = [str(w.message) for w in caught if 'PlotScales' in str(w.message)]
    assert len(messages) == 2
    assert 'scales.png is not up to date: ' in messages[0] and 'directory' in messages[0]
    assert messages[1].endswith('underflow.png is not up to date: no way')
    assert trainer.updater.iteration == 4
    assert set(os.listdir(tmp_path)) == {'scales.png', 'layers.png', 'scales.csv'}


def test_an_old_picture_stays_if_the_new_one_cannot_be_finished(tmp_path, drawn, monkeypatch):
    def half(self, path):
        with open(path, 'w') as file:
            file.write('half a picture')
        raise OSError(28, 'No space left on device')

    (tmp_path / 'scales.png').write_text('old')
    monkeypatch.setattr(Figure, 'savefig', half)
    trainer = make_trainer(tmp_path)
    trainer.extend(PlotScales())
    with pytest.warns(RuntimeWarning, match='No space left on device'):
        trainer.run()
    assert (tmp_path / 'scales.png').read_text() == 'old'
    assert set(os.listdir(tmp_path)) == {'scales.png', 'scales.csv'}


def test_without_matplotlib_there_is_a_one_line_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.delitem(sys.modules, 'chainerlp.extensions.pictures', raising=False)
    monkeypatch.delattr(chainerlp.extensions, 'pictures', raising=False)
    with pytest.raises(ImportError) as caught:
        PlotScales()
    message = str(caught.value)
    assert "pip install 'matplotlib>=3.9,<4'" in message and '\n' not in message


def test_matplotlib_is_imported_only_when_the_extension_is_made():
    program = """
import sys
import chainerlp
assert 'matplotlib' not in sys.modules
chainerlp.extensions.PlotScales()
assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules
"""
    subprocess.run([sys.executable, '-c', program], check=True)
