"""A manifest notes what a run's files are, at each snapshot and at its end, and checks itself."""

import json
import random

from experiments.reports import manifest
from experiments.reports.manifest import Manifest

import pytest

LOG, LONGER_LOG = '[\n    {"a": 1}\n]', '[\n    {"a": 1},\n    {"a": 2}\n]'


@pytest.fixture
def noted(tmp_path):
    """A manifest of a run with two snapshots."""
    (tmp_path / 'config.yaml').write_text('name: run')
    noted = Manifest(name='run', starts=[{'seed': 1}])
    noted.note_files(tmp_path)
    for iteration, log in ((2, LOG), (10, LONGER_LOG)):
        (tmp_path / 'log').write_text(log)
        (tmp_path / 'scales.csv').write_text('line\n' * iteration)
        noted.note_snapshot(tmp_path, iteration, b'content %d' % iteration, [2])
    noted.write(tmp_path)
    return noted


def test_what_is_written_is_read(noted, tmp_path):
    assert manifest.read(tmp_path) == manifest.read(tmp_path, 'run') == noted
    assert sorted(noted.snapshots) == [2, 10] and not noted.has_ended
    with pytest.raises(ValueError, match='it is of the run run'):
        manifest.read(tmp_path, 'another')


def test_no_flipped_bit_of_it_says_something_else(noted, tmp_path):
    path = tmp_path / 'run.json'
    content = path.read_bytes()
    found = 0
    for bit in random.Random(0).sample(range(8 * len(content)), 500):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            # A space may become a line, and the checksum's own key another: then it has none.
            assert manifest.read(tmp_path) == noted
        except ValueError as error:
            found += 1
            assert '\n' not in str(error)
    assert found > 400


def test_files_may_grow_after_a_snapshot_and_must_not_change_before(noted, tmp_path):
    assert noted.damages(tmp_path) == noted.damages(tmp_path, 2) == {}
    (tmp_path / 'scales.csv').write_text('line\n' * 11)
    assert noted.damages(tmp_path) == {}
    (tmp_path / 'scales.csv').write_text('line\n' * 9)
    (tmp_path / 'log').write_text(LOG)
    why = 'it does not fit its checksum in run.json'
    assert noted.damages(tmp_path) == {'scales.csv': why, 'log': why}
    assert noted.damages(tmp_path, 2) == {}
    (tmp_path / 'log').unlink()
    assert noted.damages(tmp_path, 2) == {'log': 'it is missing'}
    (tmp_path / 'config.yaml').write_text('name: RUN')
    assert noted.damages(tmp_path, 2) == {'log': 'it is missing', 'config.yaml': why}


def test_at_the_end_all_stays_as_it_is(noted, tmp_path):
    noted.note_files(tmp_path)
    noted.note_result('{}')
    assert noted.has_ended and noted.damages(tmp_path) == {}  # the result may be yet to come
    (tmp_path / 'result.json').write_text('{}')
    assert noted.damages(tmp_path) == {}
    (tmp_path / 'scales.csv').write_text('line\n' * 11)
    (tmp_path / 'nonzero.csv').write_text('of another run')
    assert noted.damages(tmp_path) == {
        'scales.csv': 'it does not fit its checksum in run.json',
        'nonzero.csv': 'run.json does not know it',
    }


def test_a_run_that_goes_back_forgets_what_came_after(noted, tmp_path):
    noted.note_files(tmp_path)
    noted.note_result('{}')
    noted.go_back(2)
    assert list(noted.snapshots) == [2] and list(noted.checksums) == ['config.yaml']
    (tmp_path / 'result.json').write_text('{}')
    assert noted.damages(tmp_path) == {'result.json': 'run.json does not know it'}


def test_a_snapshot_is_the_one_that_was_noted(noted, tmp_path):
    path = tmp_path / 'snapshot'
    for content, why in (
        (b'content 2', None),
        (b'content 3', 'it does not fit its checksum in run.json'),
        (b'content', 'it does not fit its checksum in run.json'),
    ):
        path.write_bytes(content)
        assert noted.damage_of_snapshot(path, 2) == why
    assert noted.damage_of_snapshot(path, 3) == 'run.json does not know it'
    path.unlink()
    assert noted.damage_of_snapshot(path, 2) == 'No such file or directory'


ODD = {
    'a list': '[]',
    'starts that are numbers': '{"starts": [1]}',
    'checksums that are numbers': '{"checksums": {"log": 1}}',
    'a snapshot of no iteration': '{"snapshots": {"x": {"size": 1, "checksum": ""}}}',
    'a size below 0': '{"snapshots": {"1": {"size": -1, "checksum": ""}}}',
    'files that are a list': '{"snapshots": {"1": {"size": 1, "checksum": "", "files": []}}}',
    'a name that is none': '{"name": ["run"]}',
    'a checksum that is none': '{"checksum": 1}',
    'a checksum of another': '{"checksum": "00", "starts": []}',
    'deep lists': '{"checksum": ' + '[' * 100000,
}


@pytest.mark.parametrize('kind', ODD)
def test_what_is_no_manifest_is_told_in_one_line(tmp_path, kind):
    (tmp_path / 'run.json').write_text(ODD[kind])
    with pytest.raises(ValueError) as error:
        manifest.read(tmp_path)
    assert 0 < len(str(error.value)) < 120 and '\n' not in str(error.value)
    assert manifest.known(tmp_path) == Manifest()


def test_older_manifests_are_read(tmp_path):
    content = {'starts': [{'seed': 1}], 'checksums': {'log': '00'}}
    (tmp_path / 'run.json').write_text(json.dumps(content))
    found = manifest.read(tmp_path, 'any')
    assert (found.name, found.starts, found.checksums) == (None, *content.values())
