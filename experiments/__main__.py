"""The command line: ``python -m experiments train|sweep|report|study|benchmark|schema``.

Where the package is installed, ``chainerlp-experiments`` is the same.
"""

import argparse
import json
import os
import shlex
import signal
import sys

try:
    from experiments.benchmarks import command_line as benchmark
    from experiments.config import Config
    from experiments.config.errors import ConfigError, RunError, shortened
    from experiments.reports import run_folder
    from experiments.run import command_line as run
    from experiments.run import snapshot_predictions
    from experiments.run.multi_node import is_first_process
except ModuleNotFoundError as error:
    sys.exit(f"the experiments need {error.name}: in the checkout, pip install '.[experiments]'")

_FIGURES = ('nonzero', 'unbounded', 'difference', 'expected', 'alpha')
EXIT_CODES = """\
exit codes: 0 done; 1 a run failed or is incompletely measured, or a file could not be written; 2
the command or the config is wrong, or a folder holds a run of another config; 130 interrupted by
Ctrl-C, 143 by SIGTERM (what is done stays, and the same command goes on from there); 141 nobody
reads what is printed"""


def main(argv=None):
    """Runs a command; ``argv`` is the command line's by default. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = _parser().parse_args(argv)
        arguments.line = shlex.join(['python', '-m', 'experiments', *argv])
        code = arguments.command(arguments)
        sys.stdout.flush()  # here, where it is known what to do if nobody reads it
        return code
    except (ConfigError, RunError) as error:
        run.say(error)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # Who reads it, say `head`, has seen enough. Python would complain at its end once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        run.say(f'{error.filename}: {error.strerror}' if error.filename else error)
        return 1
    except KeyboardInterrupt:
        run.say('interrupted')
        return 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does, and under MPI once."""

    def error(self, message):
        text = f'{self.prog}: {shortened(message, 200)} (see --help)\n'
        self.exit(2, text if is_first_process() else None)


def _parser():
    main = _Parser(prog='python -m experiments', epilog=EXIT_CODES, description=__doc__)
    subparsers = main.add_subparsers(metavar='COMMAND', required=True)
    for name, (description, add_arguments, command) in _COMMANDS.items():
        parser = subparsers.add_parser(
            name, help=description, description=description, epilog=EXIT_CODES
        )
        add_arguments(parser)
        parser.set_defaults(command=command)
    return main


def _add_report_arguments(parser):
    parser.add_argument(
        'results', metavar='RESULTS', nargs='+', help='folder of a run, or one that holds some'
    )
    parser.add_argument('--out', metavar='DIR', help='where it goes (the first RESULTS)')
    parser.add_argument(
        '--figure',
        choices=_FIGURES,
        action='append',
        help='draw one of the papers’ pictures instead, layer by layer: nonzero elements; unbounded'
        ' and final α; the difference of the underflow of two RESULTS; the scale expected by each'
        ' layer beside the largest single one, of float32 runs (measured from their snapshots, if'
        ' they had no report.predictions); mean α. Repeatable',
    )
    parser.add_argument(
        '--html', action='store_true', help='one self-contained page besides the markdown'
    )


def _report(arguments):
    from experiments.reports import report  # here, since Matplotlib takes half a second to import

    folder = arguments.out or arguments.results[0]
    if not arguments.figure:
        print(report.write(arguments.results, folder, arguments.html))
        return 0
    runs = run_folder.read_all(arguments.results)
    for name in dict.fromkeys(arguments.figure):
        if name == 'expected':
            _measure_snapshots(runs)
        print(report.write_figure(name, runs, folder))
    return 0


def _measure_snapshots(runs):
    """Gives float32 runs that were not asked for predictions those of their snapshots."""
    for each in runs:
        if each.config.get('scaling', {}).get('method') == 'fp32' and not each.predictions:
            each.predictions = snapshot_predictions.predictions_of(each.path)


def _add_study_arguments(parser):
    parser.add_argument(
        'results', metavar='RESULTS', nargs='+', help='folders of the runs of configs study_*'
    )
    parser.add_argument(
        '--out', metavar='DIR', required=True, help='where study.md and the folder study go'
    )


def _study(arguments):
    from experiments.reports import study

    print(study.write(arguments.results, arguments.out))
    return 0


def _schema(arguments):
    print(json.dumps(Config.model_json_schema(), indent=2, allow_nan=False))
    return 0


_COMMANDS = {
    'train': (
        'train the one model that a config describes',
        run.add_train_arguments,
        run.run_train,
    ),
    'sweep': (
        'train it with every way of scaling and every seed, and compare',
        run.add_sweep_arguments,
        run.run_sweep,
    ),
    'report': (
        'write a report of runs: a table, curves, pictures of the scales, what differs',
        _add_report_arguments,
        _report,
    ),
    'study': (
        'write the tables and pictures of a study of many runs, and its page',
        _add_study_arguments,
        _study,
    ),
    'benchmark': (
        'time a training iteration with every way of scaling, side by side',
        benchmark.add_arguments,
        benchmark.run,
    ),
    'schema': ('print the JSON schema of a config', lambda parser: None, _schema),
}

if __name__ == '__main__':
    listens = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # which experiments/__init__ set
    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    if listens:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
