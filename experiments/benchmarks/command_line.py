"""The command ``benchmark``: its options, and what it prints."""

import os

from chainerlp.extensions.files import write_text
from experiments.benchmarks import device_counts, iteration, measurement, scale_report_cost
from experiments.config.errors import ConfigError
from experiments.run.command_line import add_device_and_threads, positive, say
from experiments.run.launch import get_device

import threadpoolctl

# What ScaleReport costs is a benchmark of its own.
_REPORT = 'report'


def add_arguments(parser):
    """Adds the options to a parser of the command line."""
    parser.add_argument(
        '--model',
        choices=(*iteration.WORKLOADS, _REPORT),
        default='cnn',
        help='what is trained; report: what ScaleReport costs (%(default)s)',
    )
    parser.add_argument(
        '--policy',
        choices=tuple(iteration.POLICIES),
        action='append',
        help='what is compared with static loss scaling, at intervals of 1, 10 and 100 iterations;'
        ' repeatable (adaptive)',
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
    parser.add_argument(
        '--counts',
        metavar='FILE',
        help='on an emulated device: time nothing, but count what iterations of several models ask'
        ' of it, and write a page of tables',
    )
    add_device_and_threads(parser)


def run(arguments):
    """Measures, prints a table, and writes it as json; returns the exit code."""
    with threadpoolctl.threadpool_limits(arguments.threads, user_api='blas'):
        if arguments.counts is not None:
            write_text(arguments.counts, device_counts.page(get_device(arguments.device), say))
            print(arguments.counts)
            return 0
        return _report_cost(arguments) if arguments.model == _REPORT else _iterations(arguments)


def _report_cost(arguments):
    if arguments.device not in ('@numpy', '-1'):
        raise ConfigError(f'--device {arguments.device}: --model report is timed on the CPU only')
    print(scale_report_cost.render(scale_report_cost.run(arguments.turns, say)))
    return 0


def _iterations(arguments):
    device = get_device(arguments.device)
    workload = iteration.get_workload(arguments.model, device)
    compared = iteration.methods(arguments.policy or ['adaptive'], not arguments.no_plain)
    rows = iteration.run(workload, compared, device, arguments.turns, say)
    print(iteration.render(workload, device, rows))
    rates = measurement.measure_bandwidth(device, arguments.turns)
    print(f'\n{measurement.render_bandwidth(rates)}')
    path = os.path.join(arguments.out, f'benchmark-{workload.name}.json')
    iteration.save(path, workload, device, rows, rates)
    print(f'\n{path}')
    return 0
