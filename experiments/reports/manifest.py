"""The manifest of a run, ``run.json``: which run it is, its starts, and checksums of its files.

What a file is from the start or at the end, and stays, is noted under ``checksums``. Other files
grow while the run goes on, and each snapshot's entry notes what they were by then: it is what the
run would go on from. The manifest has a checksum of its own. Runs of older versions have none of
this, or only what their files were at the end.
"""

import hashlib
import json
import os
from typing import Annotated, Optional

from chainerlp.extensions.files import write_text
from experiments.config import bounded_file
from experiments.reports import run_files
from experiments.reports.run_files import CONFIG, LOG, READERS, RECORD, RESULT

import pydantic

_BLOCK = 2**20  # bytes
_END_OF_LOG = len('\n]')  # what comes before it stays when an entry is added
_MISMATCH = f'it does not fit its checksum in {RECORD}'


class Part(pydantic.BaseModel):
    """The beginning of a file, or the whole: its size in bytes, and its SHA-256."""

    size: Annotated[int, pydantic.Field(ge=0)]
    checksum: str

    @classmethod
    def of(cls, content):
        """Returns that of bytes."""
        return cls(size=len(content), checksum=_sha256(content))


class Snapshot(Part):
    """A snapshot, and what the files that grow were when it was taken, by their names."""

    files: dict[str, Part] = {}


class Manifest(pydantic.BaseModel):
    """What ``run.json`` says. Without arguments, that of a run that has none.

    Attributes:
        name (str): The run's name; ``None`` for a run of an older version.
        starts (list of dict): Each start: when, where, of what code.
        checksums (dict): The SHA-256 of each file that stays as it is, by its name.
        snapshots (dict): What goes with each :class:`Snapshot`, by its iteration.
    """

    name: Optional[str] = None
    starts: list[dict] = []
    checksums: dict[str, str] = {}
    snapshots: dict[int, Snapshot] = {}

    @property
    def has_ended(self):
        """bool: Whether the run has come to its end."""
        return RESULT in self.checksums

    def write(self, folder):
        """Writes ``run.json``."""
        content = json.loads(self.model_dump_json())  # keys as they are read
        text = json.dumps({**content, 'checksum': _sha256_of_json(content)}, indent=2)
        write_text(os.path.join(folder, RECORD), text)

    def note_files(self, folder):
        """Notes the files as they are, to stay so."""
        self.checksums = {name: _sha256(content) for name, content in _contents(folder)}

    def note_result(self, result):
        """Notes the text of the result, which is yet to be written: the run has ended."""
        self.checksums[RESULT] = _sha256(result.encode())

    def note_snapshot(self, folder, iteration, content, kept):
        """Notes a snapshot of the given bytes, and forgets all but those of the iterations kept.

        Of a run that an older version began it is not known what its files were before.
        """
        if self.name is None:
            return
        noted = {number: self.snapshots[number] for number in kept if number in self.snapshots}
        grown = {}
        for name, content_of_file in _contents(folder):
            if name not in self.checksums:
                size = len(content_of_file) - _END_OF_LOG * (name == LOG)
                grown[name] = Part.of(content_of_file[:size])
        self.snapshots = {iteration: Snapshot(**dict(Part.of(content)), files=grown), **noted}

    def go_back(self, iteration):
        """Forgets what was noted after an iteration; without one, which is the start, nothing."""
        if iteration is not None:
            self.snapshots = {i: noted for i, noted in self.snapshots.items() if i <= iteration}
            self.checksums = {n: noted for n, noted in self.checksums.items() if n == CONFIG}

    def files_at(self, iteration):
        """Returns what files were in an iteration, a dict of :class:`Part` by the file's name.

        Without an iteration, in that of the newest snapshot of a run that has not ended.
        """
        if iteration is None and not self.has_ended:
            iteration = max(self.snapshots, default=None)
        return self.snapshots[iteration].files if iteration in self.snapshots else {}

    def read_file(self, folder, name, iteration=None):
        """Returns the bytes of a file, which has to begin as it was in :meth:`files_at`.

        Raises:
            FileNotFoundError: If it is missing, and may be.
            OSError: If it cannot be read.
            ValueError: If it is not what was noted, or was not noted.
        """
        part = self.files_at(iteration).get(name)
        checksum = self.checksums.get(name)
        try:
            content = bounded_file.read(os.path.join(folder, name), run_files.largest(name))
        except FileNotFoundError:
            # The run may have been killed before its result was written.
            if part is not None or (checksum is not None and name != RESULT):
                raise ValueError('it is missing') from None
            raise
        if part is not None:
            is_whole = Part.of(content[: part.size]) == part
        elif checksum is not None:
            is_whole = _sha256(content) == checksum
        elif self.has_ended or (self.name is not None and name in (CONFIG, RESULT)):
            raise ValueError(f'{RECORD} does not know it')
        else:
            return content
        if not is_whole:
            raise ValueError(_MISMATCH)
        return content

    def damages(self, folder, iteration=None):
        """Returns why files are damaged, a dict by the file's name; see :meth:`read_file`."""
        found = {}
        for name in READERS:
            try:
                self.read_file(folder, name, iteration)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                found[name] = run_files.reason(error)
        return found

    def damage_of_snapshot(self, path, iteration):
        """Returns why a file is not the snapshot that was noted, or ``None`` if it is."""
        noted = self.snapshots.get(iteration)
        if noted is None:
            return f'{RECORD} does not know it'
        digest = hashlib.sha256()
        try:
            with bounded_file.open_file(path) as file:
                if os.fstat(file.fileno()).st_size == noted.size:
                    while block := file.read(_BLOCK):
                        digest.update(block)
        except OSError as error:
            return run_files.reason(error)
        return None if digest.hexdigest() == noted.checksum else _MISMATCH


def read(folder, name=None):
    """Returns the :class:`Manifest` of a run, of the given name, if that is asked for.

    Raises:
        OSError: If it cannot be read; a FileNotFoundError if there is none.
        ValueError: If it is damaged, or of another run.
    """
    path = os.path.join(folder, RECORD)
    content = run_files.read_json(bounded_file.read(path, run_files.largest(RECORD)))
    if isinstance(content, dict) and 'checksum' in content:
        if content.pop('checksum') != _sha256_of_json(content):
            raise ValueError('it does not fit the checksum in it')
    try:
        found = Manifest.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f'{".".join(map(str, first["loc"]))}: {first["msg"]}') from None
    if name is not None and found.name not in (None, name):
        raise ValueError(f'it is of the run {found.name}')
    return found


def known(folder, name=None):
    """Returns what :func:`read` does, or that of a run that has none, if it cannot be read."""
    try:
        return read(folder, name)
    except (OSError, ValueError):
        return Manifest()


def _contents(folder):
    for name in READERS:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, 'rb') as file:
                yield name, file.read()


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _sha256_of_json(content):
    return _sha256(json.dumps(content, sort_keys=True).encode())
