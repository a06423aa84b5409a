"""What a folder from elsewhere links to stays as it is, and the run says so or goes on."""

import os
import pathlib

import pytest

RUN = 'tiny/adaptive-seed=0'


@pytest.fixture
def other(tmp_path):
    """A file that is none of the run's; and what it holds."""
    path = tmp_path / 'other'
    path.write_text('precious')
    yield path
    assert path.read_text() == 'precious'


@pytest.fixture
def out(tmp_path):
    """The folder of the results, with an empty one of the run."""
    (tmp_path / 'out' / RUN).mkdir(parents=True)
    return tmp_path / 'out'


@pytest.mark.parametrize('kind', [os.symlink, os.link])
@pytest.mark.parametrize(
    'name',
    [
        *('config.unfinished.yaml', 'run.unfinished.json', 'log.unfinished', 'log', 'scales.csv'),
        *('scales.unfinished.csv', 'snapshot_iter_4.unfinished', 'result.unfinished.json'),
        *('result.json', 'error.txt', '../summary.unfinished.csv', '../summary.csv'),
    ],
)
def test_a_run_writes_through_no_link(cli, tiny, out, other, kind, name):
    kind(other, out / RUN / name)
    code, _, err = cli('sweep', tiny, '-o', 'sweep.scaling=[{method: adaptive}]')
    assert code == 0, err
    assert not any(path.is_symlink() for path in out.rglob('*'))


@pytest.mark.parametrize('kind', [os.symlink, os.link, lambda _, path: os.mkfifo(path)])
def test_a_lock_that_is_not_the_runs_own_is_refused(cli, tiny, out, other, kind):
    kind(other, out / RUN / '.lock')
    code, _, err = cli('train', tiny)
    assert code == 1
    assert f'{out / RUN}/.lock: given a link or no regular file' in err


@pytest.mark.parametrize('linked', [RUN, 'tiny'])
def test_a_run_writes_into_no_folder_that_is_a_link(cli, tiny, out, tmp_path, linked):
    (out / RUN).rmdir()
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'result.json').write_text('precious')
    path = out / linked
    path.is_dir() and path.rmdir()
    path.symlink_to(elsewhere)
    code, _, err = cli('train', tiny)
    assert code == 1 and f'{path}: a link, through which nothing is written' in err
    assert [(file.name, file.read_text()) for file in elsewhere.iterdir()] == [
        ('result.json', 'precious')
    ]


@pytest.mark.parametrize('kind', [os.symlink, os.link])
def test_a_report_writes_through_no_link(cli, tiny, out, other, kind):
    assert cli('train', tiny)[0] == cli('report', str(out), '--html')[0] == 0
    written = [*out.glob('report*/*'), *out.glob('report.*')]
    assert len(written) > 3
    for path in written:
        path.unlink()
        kind(other, path)
        unfinished = path.with_name(f'{path.stem}.unfinished{path.suffix}')
        kind(other, unfinished)
    assert cli('report', str(out), '--html')[0] == 0
    assert b'precious' not in {path.read_bytes() for path in written}
    assert not list(out.rglob('*unfinished*'))


def test_a_report_writes_into_no_folder_that_is_a_link(cli, tiny, out, tmp_path):
    assert cli('train', tiny)[0] == 0
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    pathlib.Path(out / 'report').symlink_to(elsewhere)
    code, _, err = cli('report', str(out))
    assert code == 1 and f'{out}/report: a link, through which nothing is written' in err
    assert not list(elsewhere.iterdir())
