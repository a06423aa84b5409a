"""The commands ``train`` and ``sweep``: their options, and what they print."""

import argparse
import os
import shlex
import sys

from experiments.config import loading
from experiments.config.errors import ConfigError
from experiments.reports import summary
from experiments.reports.run_files import SUMMARY
from experiments.run import dry_run, multi_node, progress, sweep
from experiments.run.launch import Launch, device_of_worker, get_device

import threadpoolctl


def positive(text):
    """Returns the integer that an option was given, for argparse; it must be 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'given {text!r}, allowed: an integer >= 1')
    return int(text)


def add_device_and_threads(parser):
    """Adds the options ``--device`` and ``--threads`` to a parser."""
    parser.add_argument(
        '--device',
        default='@numpy',
        help="Chainer's name of the device, such as @cupy:0, or a GPU's number (%(default)s)",
    )
    parser.add_argument(
        '--threads',
        type=positive,
        default=1,
        metavar='N',
        help='CPU threads of a matrix product; more can pay for large layers, and the last digits'
        ' of results depend on it (%(default)s)',
    )


def add_train_arguments(parser):
    """Adds the arguments of ``train`` to a parser."""
    parser.add_argument('config', metavar='CONFIG', help='a YAML file')
    parser.add_argument(
        '-o',
        dest='override',
        metavar='KEY.PATH=VALUE',
        action='append',
        default=[],
        help='override a key of the config with a YAML value, a list item by its index; repeatable',
    )
    parser.add_argument(
        '--out', metavar='DIR', default='results', help='folder of the results (%(default)s)'
    )
    add_device_and_threads(parser)
    parser.add_argument(
        '--fresh',
        action='store_true',
        help='start over; by default a run goes on where it was interrupted, and a finished one is'
        ' kept',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='show what would run, and for how long; measures a few iterations and writes nothing',
    )
    parser.add_argument(
        '--quiet',
        action='store_true',
        help='no progress bar but one line a run, as when stderr is no terminal',
    )


def add_sweep_arguments(parser):
    """Adds the arguments of ``sweep`` to a parser."""
    add_train_arguments(parser)
    parser.add_argument(
        '--jobs',
        type=positive,
        default=1,
        metavar='N',
        help='runs at a time, each in a process of its own and with its own --threads; several'
        ' devices, with commas in between, are given out in turns (%(default)s)',
    )


def run_train(arguments):
    """Trains the one model that a config describes; returns the exit code."""
    config = loading.load(arguments.config, arguments.override)
    return _run(arguments, config, [config.single()])


def run_sweep(arguments):
    """Trains it with every way of scaling and every seed; returns the exit code."""
    config = loading.load(arguments.config, arguments.override)
    if config.sweep is None:
        raise ConfigError(
            f'{arguments.config}: sweep: missing, allowed: a mapping with the keys seeds, scaling'
            ' (`train` needs none)'
        )
    summary_path = os.path.join(arguments.out, config.name, SUMMARY)
    return _run(arguments, config, config.runs(), summary_path)


def say(text):
    """Prints to stderr; under MPI, once."""
    if multi_node.is_first_process():
        print(text, file=sys.stderr)


def _run(arguments, config, configs, summary_path=None):
    slots = _slots(arguments)
    device = get_device(slots[0].device)
    communicator = multi_node.create_communicator(device)
    device = device_of_worker(device, communicator)
    folder = os.path.join(arguments.out, config.name)
    launch = Launch(device, communicator, arguments.fresh, command=arguments.line)
    with threadpoolctl.threadpool_limits(arguments.threads, user_api='blas'):
        if arguments.dry_run:
            text, is_whole = dry_run.describe(configs, folder, launch, len(slots), say)
            if multi_node.is_first_process():
                print(text)
            return 0 if is_whole else 1
        wanted = configs[0].train.workers
        if wanted not in (None, launch.workers):
            raise ConfigError(
                f'{arguments.config}: train.workers: given {wanted}, but {launch.workers} started;'
                f' allowed: mpiexec -n {wanted}, or -o train.workers=null for a training of its own'
            )
        with launch.stop:
            return _execute(arguments, configs, folder, launch, slots, summary_path)


def _slots(arguments):
    count = getattr(arguments, 'jobs', 1)
    names = arguments.device.split(',')
    if len(names) > count:
        raise ConfigError(
            f'--device {arguments.device}: given {len(names)}, allowed: one for each of --jobs'
        )
    if count > 1 and not multi_node.is_alone():
        raise ConfigError(f'--jobs {count}: under mpiexec all processes work on one run')
    return [sweep.Slot(names[i % len(names)], arguments.threads) for i in range(count)]


def _execute(arguments, configs, folder, launch, slots, summary_path):
    is_first = multi_node.is_first_process()
    is_quiet = arguments.quiet or len(slots) > 1 or not sys.stderr.isatty() or not is_first
    shown = (progress.Lines if is_quiet else progress.Bars)(len(configs))
    results = []
    try:
        for result in sweep.execute(configs, folder, launch, shown, summary_path, slots):
            results.append(result)
    except KeyboardInterrupt:
        done = sum(result.error is None for result in results)
        how = 'without --fresh it goes' if arguments.fresh else 'the same command goes'
        say(f'interrupted; {done} of {len(configs)} runs are in {folder}; {how} on from there')
        return launch.stop.exit_code
    if not is_first:
        return 0
    print(summary.render(results))
    print(f'\n{summary_path or os.path.join(folder, configs[0].run_name)}')
    say(f'next: {shlex.join(["python", "-m", "experiments", "report", folder, "--html"])}')
    return 1 if any(result.error or result.incomplete for result in results) else 0
