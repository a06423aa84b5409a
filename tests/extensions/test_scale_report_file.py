"""The file of ScaleReport is whole, whatever becomes of the training or of the disk."""

import errno
import os

from chainerlp.extensions import ScaleReport, files
from tests.extensions.reported_trainings import MLP, make_trainer, rows_of

import chainer
import numpy
import pytest
from chainer import training
from chainer.training import extensions


def test_an_older_file_is_replaced(tmp_path):
    for _ in range(2):
        make_trainer(tmp_path, extension=ScaleReport(trigger=(4, 'iteration'))).run()
    assert [row['iteration'] for row in rows_of(tmp_path)] == ['4'] * 4 + ['8'] * 4


@pytest.mark.parametrize('epochs', [1, 2], ids=['stopped', 'went on'])
@pytest.mark.parametrize('snapshot_at', [1, 2, 3, 4])
@pytest.mark.parametrize(
    'trigger', [(1, 'iteration'), (2, 'iteration'), (0.5, 'epoch'), (0.6, 'epoch')], ids=str
)
def test_a_resumed_training_continues_the_file_without_gap_or_double(
    tmp_path, trigger, snapshot_at, epochs
):
    def prepare(out, epochs=2):
        extension = ScaleReport(trigger=trigger)
        trainer = make_trainer(out, 'float32', epochs, extension=extension, net=MLP)
        snapshot = extensions.snapshot(filename='at{.updater.iteration}')
        trainer.extend(snapshot, trigger=(1, 'iteration'))
        return trainer

    prepare(tmp_path / 'whole').run()
    prepare(tmp_path / 'resumed', epochs).run()
    trainer = prepare(tmp_path / 'resumed')
    chainer.serializers.load_npz(tmp_path / 'resumed' / f'at{snapshot_at}', trainer)
    trainer.run()
    assert rows_of(tmp_path / 'resumed') == rows_of(tmp_path / 'whole')


def test_a_snapshot_that_is_taken_before_the_report_is_as_good(tmp_path):
    def prepare(out):
        extension = ScaleReport(trigger=(2, 'iteration'))
        trainer = make_trainer(out, 'float32', extension=extension, net=MLP)
        snapshot = extensions.snapshot(filename='at{.updater.iteration}')
        trainer.extend(snapshot, trigger=(1, 'iteration'), priority=1000)
        return trainer

    prepare(tmp_path / 'whole').run()
    for iteration in (1, 3, 5):
        trainer = prepare(tmp_path / 'resumed')
        chainer.serializers.load_npz(tmp_path / 'whole' / f'at{iteration}', trainer)
        trainer.run()
        expected = [row for row in rows_of(tmp_path / 'whole') if int(row['iteration']) > iteration]
        assert rows_of(tmp_path / 'resumed')[-len(expected) :] == expected


@pytest.fixture
def broken_folder(tmp_path, monkeypatch):
    """Lets writing in the folder fail, for root too; `.error` says how, `None` for not at all."""

    class Full:
        """A file on a disk with room for half of what is written."""

        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def write(self, content):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Folder:
        error = None

    def broken_open(path, mode='r', *args, **kwargs):
        is_meant = not isinstance(path, int) and os.fspath(path).startswith(str(tmp_path))
        if not is_meant or mode in ('r', 'rb') or Folder.error is None:
            return real_open(path, mode, *args, **kwargs)
        if Folder.error == errno.ENOSPC:
            return Full(real_open(path, mode, *args, **kwargs))
        raise OSError(Folder.error, os.strerror(Folder.error), path)

    real_open = open
    monkeypatch.setattr('builtins.open', broken_open)
    monkeypatch.setattr('io.open', broken_open)  # that of zipfile, and so of NumPy
    return Folder


BROKEN = pytest.mark.parametrize(
    'error', [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=['full', 'read-only', 'forbidden']
)


@BROKEN
def test_what_cannot_be_written_is_a_warning_and_training_goes_on(tmp_path, broken_folder, error):
    extension = ScaleReport(trigger=(4, 'iteration'), histogram=True)
    trainer = make_trainer(tmp_path, extension=extension)
    broken_folder.error = error
    with pytest.warns(RuntimeWarning) as caught:
        trainer.run()
    messages = [str(w.message) for w in caught if 'ScaleReport' in str(w.message)]
    expected = [
        f'ScaleReport: iteration {iteration} is missing in {tmp_path / name}: {os.strerror(error)}'
        for iteration in (4, 8)
        for name in ('scales.csv', 'histogram.npz')
    ]
    assert messages == expected
    assert trainer.updater.iteration == 8
    assert os.listdir(tmp_path) == []


@BROKEN
def test_what_was_written_before_the_disk_was_full_stays_and_goes_on_later(
    tmp_path, broken_folder, error
):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    for out in (whole, broken):
        extension = ScaleReport(trigger=(1, 'iteration'), histogram=True)
        trainer = make_trainer(out, extension=extension, epochs=1)

        @training.make_extension(trigger=(1, 'iteration'), priority=1000)
        def breaks(trainer, out=out):
            is_broken = out == broken and trainer.updater.iteration in (2, 3)
            broken_folder.error = error if is_broken else None

        trainer.extend(breaks)
        if out == broken:
            with pytest.warns(RuntimeWarning, match='iteration [23] is missing'):
                trainer.run()
        else:
            trainer.run()
    expected = [row for row in rows_of(whole) if row['iteration'] in '14']
    assert rows_of(broken) == expected and len(expected) == 8
    assert set(os.listdir(broken)) == {'scales.csv', 'histogram.npz'}
    with numpy.load(broken / 'histogram.npz') as file:
        assert file['iteration'].tolist() == [1] * 4 + [4] * 4


def test_a_half_written_line_is_not_continued(tmp_path):
    """What a crash left behind is dropped when the training is resumed."""
    make_trainer(tmp_path, extension=ScaleReport(trigger=(4, 'iteration')), epochs=1).run()
    before = rows_of(tmp_path)
    with open(tmp_path / 'scales.csv', 'a') as file:
        file.write('4,/predictor/fc,0,1.0,1.')
    files.start(tmp_path / 'scales.csv', 8)
    assert rows_of(tmp_path) == before


def test_a_file_that_is_taken_away_meanwhile_is_begun_anew(tmp_path):
    trainer = make_trainer(tmp_path, extension=ScaleReport(trigger=(1, 'iteration')), epochs=1)

    @training.make_extension(trigger=(1, 'iteration'), priority=1)
    def take_away(trainer):
        if trainer.updater.iteration == 2:
            os.remove(tmp_path / 'scales.csv')

    trainer.extend(take_away)
    trainer.run()
    assert [row['iteration'] for row in rows_of(tmp_path)] == ['3'] * 4 + ['4'] * 4
