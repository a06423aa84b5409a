"""The command line: ``python -m experiments train|sweep|report|benchmark|schema``."""

import argparse
import json
import os
import sys

from experiments import loading
from experiments.benchmarks import command
from experiments.config import Config
from experiments.errors import ConfigError

_EPILOG = """\
exit codes: 0 done, 1 a run failed or a file could not be written, 2 the command or the config is
wrong, 130 interrupted (what is done stays)"""


def main(argv=None):
    """Runs a command.

    Args:
        argv (list of str): The arguments; the command line's by default.

    Returns:
        int: The exit code.
    """
    try:
        arguments = _parser().parse_args(argv)
        return arguments.command(arguments)
    except ConfigError as error:
        return _complain(error, 2)
    except OSError as error:
        return _complain(f'{error.filename}: {error.strerror}' if error.filename else error, 1)
    except KeyboardInterrupt:
        return _complain('interrupted', 130)


def _complain(message, code):
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


def _run(arguments, config, runs, summary_path=None):
    # Here and not at the top: Chainer takes a second to import, and an error is shown before that.
    from experiments import devices, progress, sweep, table, workers

    import threadpoolctl

    device = devices.get(arguments.device)
    communicator = workers.communicator(device)
    device = workers.own_device(device, communicator)
    is_first = workers.is_first(communicator)
    folder = os.path.join(arguments.out, config.name)
    quiet = arguments.quiet or not sys.stderr.isatty() or not is_first
    shown = (progress.Lines if quiet else progress.Bars)(len(runs))
    results = []
    try:
        with threadpoolctl.threadpool_limits(arguments.threads, user_api='blas'):
            for result in sweep.execute(runs, folder, device, shown, summary_path, communicator):
                results.append(result)
    except KeyboardInterrupt:
        return _complain(f'interrupted; {len(results)} of {len(runs)} runs are in {folder}', 130)
    if not is_first:
        return 0
    print(table.render(results))
    print(f'\n{summary_path or os.path.join(folder, runs[0].run_name)}')
    return 1 if any(result.error for result in results) else 0


def _report(arguments):
    from experiments import reports

    print(reports.write(arguments.results, arguments.out or arguments.results[0], arguments.html))
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does."""

    def error(self, message):
        """Ends the program."""
        self.exit(2, f'{self.prog}: {message} (see --help)\n')


def _parser():
    parser = _Parser(prog='python -m experiments', epilog=_EPILOG, description=__doc__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for name, execute, what in (
        ('train', _train, 'train the one model that a config describes'),
        ('sweep', _sweep, 'train it with every way of scaling and every seed, and compare'),
    ):
        sub = commands.add_parser(name, help=what, description=what, epilog=_EPILOG)
        _add_arguments(sub)
        sub.set_defaults(command=execute)
    _add_report(commands)
    _add_benchmark(commands)
    what = 'print the JSON schema of a config'
    schema = commands.add_parser('schema', help=what, description=what)
    schema.set_defaults(command=_schema)
    return parser


def _add_report(commands):
    what = 'write a report of runs: a table, curves, pictures of the scales, what differs'
    sub = commands.add_parser('report', help=what, description=what, epilog=_EPILOG)
    sub.add_argument(
        'results', metavar='RESULTS', nargs='+', help='folder of a run, or one that holds some'
    )
    sub.add_argument('--out', metavar='DIR', help='where it goes (the first RESULTS)')
    sub.add_argument(
        '--html', action='store_true', help='one self-contained page besides the markdown'
    )
    sub.set_defaults(command=_report)


def _add_benchmark(commands):
    what = 'time a training iteration with every way of scaling, side by side'
    sub = commands.add_parser('benchmark', help=what, description=what, epilog=_EPILOG)
    command.add_arguments(sub)
    _add_threads(sub)
    sub.set_defaults(command=command.run)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'given {text!r}, allowed: an integer >= 1')
    return int(text)


def _add_arguments(parser):
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
    parser.add_argument(
        '--device',
        default='@numpy',
        help="Chainer's name of the device, such as @cupy:0 (%(default)s)",
    )
    _add_threads(parser)
    parser.add_argument(
        '--quiet',
        action='store_true',
        help='no progress bar but one line a run, as when stderr is no terminal',
    )


def _add_threads(parser):
    parser.add_argument(
        '--threads',
        type=_positive,
        default=1,
        metavar='N',
        help='CPU threads of a matrix product; more can pay for large layers, and the last digits'
        ' of results depend on it (%(default)s)',
    )


if __name__ == '__main__':
    sys.exit(main())
