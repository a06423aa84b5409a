"""One training run: its folder, its snapshots, and how it is resumed."""

from experiments.runner.assembly import measured_trainer
from experiments.runner.execution import run, settings
from experiments.runner.folder import State, locked, state
from experiments.runner.launch import Launch
from experiments.runner.stopping import Stop

__all__ = ['Launch', 'State', 'Stop', 'locked', 'measured_trainer', 'run', 'settings', 'state']
