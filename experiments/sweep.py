"""Several runs one after another, and their summary."""

import os

from experiments import runner, summary


def execute(configs, folder, device, progress, summary_path=None):
    """Runs configs one after another; a run that fails does not stop the others.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each gets a folder of its own in it.
        device (~chainer.backend.Device): Where they run.
        progress (experiments.progress.Bars or experiments.progress.Lines): Shows them.
        summary_path (str): The summary, written after every run; none by default.

    Yields:
        experiments.summary.Result: Of each run, as it ends.
    """
    results = []
    with progress:
        for config in configs:
            extras = progress.extensions(config.run_name)
            result = runner.run(config, os.path.join(folder, config.run_name), device, extras)
            results.append(result)
            if summary_path is not None:
                summary.write(summary_path, results)
            progress.finished(result)
            yield result
