"""Several runs one after another, and their summary."""

import os

from experiments import runner, summary


def execute(configs, folder, device, progress, summary_path=None, communicator=None):
    """Runs configs one after another; a run that fails does not stop the others.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each gets a folder of its own in it.
        device (~chainer.backend.Device): Where they run.
        progress (experiments.progress.Bars or experiments.progress.Lines): Shows them.
        summary_path (str): The summary, written after every run; none by default.
        communicator (~chainermn.CommunicatorBase): Of the workers; ``None`` if there is one.

    Yields:
        experiments.summary.Result: Of each run, as it ends; on the first worker only.
    """
    results = []
    with progress:
        for config in configs:
            extras = progress.extensions(config.run_name)
            result = runner.run(
                config, os.path.join(folder, config.run_name), device, extras, communicator
            )
            if result is None:
                continue
            results.append(result)
            if summary_path is not None:
                summary.write(summary_path, results)
            progress.finished(result)
            yield result
