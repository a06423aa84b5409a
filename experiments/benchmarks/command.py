"""The command ``benchmark``: its options, and what it prints."""

import os
import sys

from experiments.numbers import positive

SUBJECTS = ('mlp', 'cnn', 'resnet20', 'resnet18', 'resnet50', 'ssd300')
POLICIES = ('adaptive', 'amax', 'measured', 'abs_range', 'log_normal')
# What ScaleReport costs is a benchmark of its own.
REPORT = 'report'


def add_arguments(parser):
    """Adds the options to a parser of the command line."""
    parser.add_argument(
        '--model',
        choices=(*SUBJECTS, REPORT),
        default='cnn',
        help='what is trained; report: what ScaleReport costs (%(default)s)',
    )
    parser.add_argument(
        '--policy',
        choices=POLICIES,
        action='append',
        help='what is compared with static loss scaling, at intervals of 1, 10 and 100 iterations;'
        ' repeatable (adaptive)',
    )
    parser.add_argument(
        '--device',
        default='@numpy',
        help="Chainer's name of the device, such as @cupy:0, or the number of a GPU (%(default)s)",
    )
    parser.add_argument(
        '--no-plain',
        action='store_true',
        help='leave out plain Chainer in mixed16, which is very slow on a CPU',
    )
    parser.add_argument(
        '--turns', type=positive, default=9, metavar='N', help='timed iterations (%(default)s)'
    )
    parser.add_argument(
        '--out', metavar='DIR', default='results', help='for the json (%(default)s)'
    )


def run(arguments):
    """Measures, prints a table, and writes it as json.

    Args:
        arguments (argparse.Namespace): The options, and ``threads``.

    Returns:
        int: The exit code.
    """
    import threadpoolctl

    with threadpoolctl.threadpool_limits(arguments.threads, user_api='blas'):
        return _report_cost(arguments) if arguments.model == REPORT else _iterations(arguments)


def _report_cost(arguments):
    from experiments.benchmarks import report_cost
    from experiments.errors import ConfigError

    if arguments.device not in ('@numpy', '-1'):
        raise ConfigError(f'--device {arguments.device}: --model report is timed on the CPU only')
    print(report_cost.render(report_cost.run(arguments.turns, _say)))
    return 0


def _iterations(arguments):
    # Here and not at the top: Chainer takes a second to import, and an error is shown before that.
    from experiments import devices
    from experiments.benchmarks import bandwidth, iteration, methods, subjects

    device = devices.get(arguments.device)
    subject = subjects.get(arguments.model, device)
    compared = methods.compared(arguments.policy or ['adaptive'], not arguments.no_plain)
    rows = iteration.run(subject, compared, device, arguments.turns, _say)
    print(iteration.render(subject, device, rows))
    rates = bandwidth.run(device, arguments.turns)
    print(f'\n{bandwidth.render(rates)}')
    path = os.path.join(arguments.out, f'benchmark-{subject.name}.json')
    iteration.save(path, subject, device, rows, rates)
    print(f'\n{path}')
    return 0


def _say(text):
    print(text, file=sys.stderr)
