import os
import pathlib

from experiments.__main__ import main

import pytest
from chainer.training.updaters import StandardUpdater

ROOT = pathlib.Path(__file__).parents[2]

TINY = """\
name: tiny
dataset: {name: digits}
model: {name: mlp, layers: 3, units: 16}
optimizer: {name: momentum_sgd, lr: 0.05}
train: {batch_size: 128, epochs: 1, max_iterations: 4}
scaling: {method: adaptive}
sweep:
  seeds: [0]
  scaling: [{method: fp32}, {method: adaptive}]
"""


@pytest.fixture(scope='session')
def samples():
    """Returns the folder of the real samples, which need not be there."""
    return pathlib.Path(os.environ.get('CHAINERLP_DATA', ROOT.parent / 'shared' / 'data'))


@pytest.fixture
def tiny(tmp_path):
    """A config file of a run of four iterations."""
    path = tmp_path / 'tiny.yaml'
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def cli(capsys, tmp_path):
    """Runs the command line in this process, results under tmp_path/out."""

    def run(*arguments):
        capsys.readouterr()
        if arguments[0] in ('train', 'sweep'):
            arguments = (*arguments, '--out', str(tmp_path / 'out'))
        try:
            code = main(list(arguments))
        except SystemExit as error:  # argparse's
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def signalled(monkeypatch):
    """Sends this process signals at the beginning of an iteration."""

    def at(iterations, *signals):
        call = StandardUpdater.update_core
        due = list(signals)

        def update(self):
            while due and self.iteration == iterations - 1:
                os.kill(os.getpid(), due.pop())
            call(self)

        patch.setattr(StandardUpdater, 'update_core', update)

    with monkeypatch.context() as patch:
        yield at
