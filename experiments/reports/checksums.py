"""Checksums of what a run leaves, kept in its ``run.json``: what was damaged since does not fit."""

import hashlib
import os

from experiments.reports import run_files
from experiments.reports.run_files import CONFIG, LOG, RECORD, RESULT, SCALES

_FILES = (CONFIG, LOG, SCALES, RESULT)
_BLOCK = 2**20


def make(folder, result):
    """Returns the SHA-256 of each file of a finished run, a dict by the file's name.

    Args:
        folder (str): The run's.
        result (str): The text of the result, which is written after its checksum is.
    """
    paths = {name: os.path.join(folder, name) for name in _FILES}
    found = {name: _of_file(path) for name, path in paths.items() if os.path.exists(path)}
    found[RESULT] = hashlib.sha256(result.encode()).hexdigest()
    return found


def damages(folder):
    """Returns why a run's files are damaged, a dict by the file's name.

    It is empty for a run that has not ended, or was made before there were checksums. A result that
    is missing is no damage: the run may have been killed before it was written.
    """
    try:
        recorded = run_files.read_record(os.path.join(folder, RECORD))['checksums']
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return {RECORD: run_files.reason(error)}
    found = {}
    for name in _FILES:
        try:
            if name in recorded and _of_file(os.path.join(folder, name)) != recorded[name]:
                found[name] = f'it does not fit its checksum in {RECORD}'
        except FileNotFoundError:
            if name != RESULT:
                found[name] = 'it is missing'
        except OSError as error:
            found[name] = run_files.reason(error)
    return found


def _of_file(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
