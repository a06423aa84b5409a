"""The scales that the layers of a float32 run want, from its snapshot."""

import os
import tempfile

from chainerlp.extensions import files
from experiments.config import loading
from experiments.reports.run_files import CONFIG, PREDICTIONS, PredictionRow
from experiments.run import snapshots, train
from experiments.run.launch import Launch, get_device
from experiments.run.predictions import Predictions

from chainer import training


def predictions_of(folder):
    """Goes on for one iteration from the newest snapshot of a run, and measures it.

    The run is left as it is. The iteration is that of the run, or the one after its end.

    Args:
        folder (str): Of the run.

    Returns:
        list of ~experiments.reports.run_files.PredictionRow: A row a layer; none without a
        snapshot that is intact.

    Raises:
        ConfigError: If its config is not one of this version, or its data is not there.
        RunError: If its snapshot is not one of this version.
    """
    iteration, _ = snapshots.newest_intact(folder)
    if iteration is None:
        return []
    config = loading.load(os.path.join(folder, CONFIG))
    launch = Launch(get_device('@numpy'))
    with tempfile.TemporaryDirectory() as out, train.settings(config, launch.device):
        trainer = train.build_timed_trainer(config, out, launch)
        # No IntervalTrigger, which would warn that the snapshot has no state of it.
        trainer.extend(Predictions(1), trigger=lambda _: True)
        snapshots.load(snapshots.path_of(folder, iteration), trainer)
        trainer.stop_trigger = training.get_trigger((iteration + 1, 'iteration'))
        trainer.run(show_loop_exception_msg=False)
        return files.read(os.path.join(out, PREDICTIONS), PredictionRow)
