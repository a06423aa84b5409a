"""Chainer can be imported by the tests of this folder: chainerlp has been."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import chainerlp  # noqa: F401

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='session')
def run_python():
    """Runs code in a fresh interpreter, in which nothing has been imported."""

    def run(code, *options, path=ROOT):
        environment = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
        environment['PYTHONPATH'] = os.pathsep.join([str(path), str(ROOT)])
        return subprocess.run(
            [sys.executable, *options, '-c', textwrap.dedent(code)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture(scope='session')
def facts_of(run_python):
    """Runs code that leaves a dict ``facts``, and returns it."""

    def run(code, *options, **kwargs):
        code = textwrap.dedent(code) + '\nimport json; print(json.dumps(facts))\n'
        done = run_python(code, *options, **kwargs)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
