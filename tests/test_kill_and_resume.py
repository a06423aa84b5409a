"""A training that is killed again and again ends as if it had never been."""

import csv
import importlib.util
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy
import pytest

PROGRAM = pathlib.Path(__file__).with_name('killed_program.py')
KILLS = 20


def load_program():
    spec = importlib.util.spec_from_file_location('killed_program', PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def run(out, *arguments):
    environment = dict(os.environ, PYTHONPATH=str(PROGRAM.parents[1]), OPENBLAS_NUM_THREADS='1')
    command = [sys.executable, str(PROGRAM), str(out), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == (-signal.SIGKILL if arguments else 0), done.stderr


def newest(out):
    return max(int(path.name.rpartition('_')[2]) for path in out.glob('snapshot_iter_*'))


def final_state(out, iterations):
    """Everything in the last snapshot but times, by key."""
    with numpy.load(out / f'snapshot_iter_{iterations}') as snapshot:
        return {key: snapshot[key] for key in snapshot.files if key.startswith('updater/')}


def scales(out):
    with open(out / 'scales.csv', newline='') as file:
        return list(csv.reader(file))


def log(out):
    entries = json.loads((out / 'log').read_text())
    return [{k: v for k, v in entry.items() if k != 'elapsed_time'} for entry in entries]


@pytest.mark.slow
def test_after_twenty_kills_weights_scales_and_log_are_those_of_an_uninterrupted_run(tmp_path):
    program = load_program()
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    run(whole)
    rng = random.Random(0)
    iterations = sorted(rng.sample(range(2, program.ITERATIONS - 5), KILLS))
    for iteration, place in zip(iterations, itertools.cycle(program.PLACES)):
        run(killed, iteration, place, rng.uniform(0, 0.02))
        assert newest(killed) >= iteration - 1
    run(killed)

    actual, expected = (final_state(out, program.ITERATIONS) for out in (killed, whole))
    assert set(actual) == set(expected)
    for key in expected:
        numpy.testing.assert_array_equal(actual[key], expected[key], err_msg=key)
    state = 'updater/optimizer:main/adaptive_loss_scaling/'
    assert expected[state + 'skipped'] > 0 and expected[state + 'backoff'] < 1
    assert any(key.startswith(state + 'masters') for key in expected)
    assert any(expected[key].size for key in expected if key.endswith('/held'))

    assert scales(killed) == scales(whole)
    lines = [tuple(line[:3]) for line in scales(whole)[1:]]
    assert len(set(lines)) == len(lines)
    assert {int(line[0]) for line in lines} == set(range(1, program.ITERATIONS + 1))
    assert log(killed) == log(whole)
