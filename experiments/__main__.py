"""The command line: ``python -m experiments train|sweep|report|benchmark|schema``."""

import json
import os
import shlex
import sys

from experiments import command_line, loading, ranks
from experiments.benchmarks import command as benchmark
from experiments.config import Config
from experiments.errors import ConfigError


def main(argv=None):
    """Runs a command.

    Args:
        argv (list of str): The arguments; the command line's by default.

    Returns:
        int: The exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = command_line.parser(__doc__, _COMMANDS).parse_args(argv)
        arguments.line = shlex.join(['python', '-m', 'experiments', *argv])
        return arguments.command(arguments)
    except ConfigError as error:
        return _complain(error, 2)
    except OSError as error:
        return _complain(f'{error.filename}: {error.strerror}' if error.filename else error, 1)
    except KeyboardInterrupt:
        return _complain('interrupted', 130)


def _complain(message, code):
    if ranks.is_first():  # under MPI all of them have the same to say
        print(message, file=sys.stderr)
    return code


def _schema(arguments):
    print(json.dumps(Config.model_json_schema(), indent=2, allow_nan=False))
    return 0


def _train(arguments):
    config = loading.load(arguments.config, arguments.override)
    return _run(arguments, config, [config.single()])


def _sweep(arguments):
    config = loading.load(arguments.config, arguments.override)
    if config.sweep is None:
        raise ConfigError(
            f'{arguments.config}: sweep: missing, allowed: a mapping with the keys seeds, scaling'
            ' (`train` needs none)'
        )
    summary_path = os.path.join(arguments.out, config.name, 'summary.csv')
    return _run(arguments, config, config.runs(), summary_path)


def _run(arguments, config, configs, summary_path=None):
    # Here and not at the top: Chainer takes a second to import, and an error is shown before that.
    from experiments import devices, runner, workers

    import threadpoolctl

    slots = _slots(arguments)
    device = devices.get(slots[0].device)
    communicator = workers.communicator(device)
    device = workers.own_device(device, communicator)
    folder = os.path.join(arguments.out, config.name)
    launch = runner.Launch(device, communicator, arguments.fresh, command=arguments.line)
    with threadpoolctl.threadpool_limits(arguments.threads, user_api='blas'):
        if arguments.dry_run:
            return _describe(configs, folder, launch, len(slots))
        slots = slots if len(slots) > 1 else None
        with launch.stop:
            return _execute(arguments, configs, folder, launch, slots, summary_path)


def _slots(arguments):
    from experiments import jobs

    count = getattr(arguments, 'jobs', 1)
    devices = arguments.device.split(',')
    if len(devices) > count:
        raise ConfigError(
            f'--device {arguments.device}: given {len(devices)}, allowed: one for each of --jobs'
        )
    if count > 1 and not ranks.is_alone():
        raise ConfigError(f'--jobs {count}: under mpiexec all processes work on one run')
    return [jobs.Slot(devices[i % len(devices)], arguments.threads) for i in range(count)]


def _describe(configs, folder, launch, at_a_time):
    from experiments import dry_run

    text, is_whole = dry_run.describe(configs, folder, launch, at_a_time, _say)
    if ranks.is_first():
        print(text)
    return 0 if is_whole else 1


def _execute(arguments, configs, folder, launch, slots, summary_path):
    from experiments import progress, sweep, table

    is_quiet = arguments.quiet or slots or not sys.stderr.isatty() or not ranks.is_first()
    shown = (progress.Lines if is_quiet else progress.Bars)(len(configs))
    results = []
    try:
        for result in sweep.execute(configs, folder, launch, shown, summary_path, slots):
            results.append(result)
    except KeyboardInterrupt:
        done = sum(result.error is None for result in results)
        said = f'interrupted; {done} of {len(configs)} runs are in {folder}'
        way_on = 'without --fresh it goes' if arguments.fresh else 'the same command goes'
        return _complain(f'{said}; {way_on} on from there', launch.stop.exit_code)
    if not ranks.is_first():
        return 0
    print(table.render(results))
    print(f'\n{summary_path or os.path.join(folder, configs[0].run_name)}')
    return 1 if any(result.error for result in results) else 0


def _report(arguments):
    from experiments import reports

    print(reports.write(arguments.results, arguments.out or arguments.results[0], arguments.html))
    return 0


def _say(text):
    if ranks.is_first():
        print(text, file=sys.stderr)


_COMMANDS = {
    'train': _train,
    'sweep': _sweep,
    'report': _report,
    'benchmark': benchmark.run,
    'schema': _schema,
}

if __name__ == '__main__':
    sys.exit(main())
