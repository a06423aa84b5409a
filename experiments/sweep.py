"""Several runs, one after another or some at a time, and their summary."""

import os

from experiments import jobs, runner, summary, workers


def execute(configs, folder, launch, progress, summary_path=None, slots=None):
    """Runs what is not finished yet; a run that fails does not stop the others.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each gets a folder of its own in it.
        launch (experiments.runner.Launch): How they are started.
        progress (experiments.progress.Bars or experiments.progress.Lines): Shows them.
        summary_path (str): The summary, written after every run; none by default.
        slots (list of experiments.jobs.Slot): As many runs at a time, each in a process of its own;
            one after another in this process by default.

    Yields:
        experiments.summary.Result: Of each run, as it ends; on the first worker only.

    Raises:
        ConfigError: If a folder holds a run of another config. Nothing has been run then.
        OSError: If there can be no such folder.
        KeyboardInterrupt: If it is interrupted.
    """
    found = states(configs, folder, launch)
    workers.of_first(launch.communicator, lambda: os.makedirs(folder, exist_ok=True))
    results = {}
    with progress:
        if slots is None:
            ended = _one_by_one(configs, folder, launch, progress)
        else:
            ended = _some_at_a_time(configs, found, folder, launch, slots)
        for result in ended:
            results[result.name] = result
            if summary_path is not None:
                in_order = [results[c.run_name] for c in configs if c.run_name in results]
                summary.write(summary_path, in_order)
            progress.finished(result)
            yield result


def _some_at_a_time(configs, states, folder, launch, slots):
    unfinished = []
    for config, state in zip(configs, states):
        if state.result is None:
            unfinished.append(config)
        else:  # no process need be started for it
            yield state.result
    yield from jobs.execute(unfinished, folder, launch, slots)


def states(configs, folder, launch):
    """Looks how far runs are.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each has a folder of its own in it.
        launch (experiments.runner.Launch): How they are started.

    Returns:
        list of experiments.runner.State: In the same order.

    Raises:
        ConfigError: If a folder holds a run of another config.
    """
    return workers.of_first(
        launch.communicator,
        lambda: [runner.state(os.path.join(folder, c.run_name), c, launch) for c in configs],
    )


def _one_by_one(configs, folder, launch, progress):
    for config in configs:
        launch.stop.raise_if_requested()
        extras = progress.extensions(config.run_name)
        result = runner.run(config, os.path.join(folder, config.run_name), launch, extras)
        if result is not None:
            yield result
