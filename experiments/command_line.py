"""The arguments of the command line."""

import argparse

from experiments import ranks
from experiments.benchmarks import command as benchmark
from experiments.numbers import positive

EXIT_CODES = """\
exit codes: 0 done; 1 a run failed, or a file could not be written; 2 the command or the config is
wrong, or a folder holds a run of another config; 130 interrupted by Ctrl-C, 143 by SIGTERM (what
is done stays, and the same command goes on from there)"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does, and under MPI once."""

    def error(self, message):
        """Ends the program."""
        said = f'{self.prog}: {message} (see --help)\n'
        self.exit(2, said if ranks.is_first() else None)


def parser(description, commands):
    """Returns the parser; what it parses has the command's function as ``command``.

    Args:
        description (str): What the program is.
        commands (dict): A function for each of the commands.

    Returns:
        argparse.ArgumentParser: The parser.
    """
    main = _Parser(prog='python -m experiments', epilog=EXIT_CODES, description=description)
    subparsers = main.add_subparsers(metavar='COMMAND', required=True)
    for name, (what, add_arguments) in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=what, description=what, epilog=EXIT_CODES)
        add_arguments(sub)
        sub.set_defaults(command=commands[name])
    return main


def _add_train(parser):
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
        help="Chainer's name of the device, such as @cupy:0, or a GPU's number (%(default)s)",
    )
    _add_threads(parser)
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


def _add_sweep(parser):
    _add_train(parser)
    parser.add_argument(
        '--jobs',
        type=positive,
        default=1,
        metavar='N',
        help='runs at a time, each in a process of its own and with its own --threads; several'
        ' devices, with commas in between, are given out in turns (%(default)s)',
    )


def _add_report(parser):
    parser.add_argument(
        'results', metavar='RESULTS', nargs='+', help='folder of a run, or one that holds some'
    )
    parser.add_argument('--out', metavar='DIR', help='where it goes (the first RESULTS)')
    parser.add_argument(
        '--html', action='store_true', help='one self-contained page besides the markdown'
    )


def _add_benchmark(parser):
    benchmark.add_arguments(parser)
    _add_threads(parser)


def _add_nothing(parser):
    pass


def _add_threads(parser):
    parser.add_argument(
        '--threads',
        type=positive,
        default=1,
        metavar='N',
        help='CPU threads of a matrix product; more can pay for large layers, and the last digits'
        ' of results depend on it (%(default)s)',
    )


_COMMANDS = {
    'train': ('train the one model that a config describes', _add_train),
    'sweep': ('train it with every way of scaling and every seed, and compare', _add_sweep),
    'report': (
        'write a report of runs: a table, curves, pictures of the scales, what differs',
        _add_report,
    ),
    'benchmark': (
        'time a training iteration with every way of scaling, side by side',
        _add_benchmark,
    ),
    'schema': ('print the JSON schema of a config', _add_nothing),
}
