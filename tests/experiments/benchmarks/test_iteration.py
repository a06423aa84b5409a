"""The methods of scaling are timed side by side."""

import json

from experiments.__main__ import main
from experiments.benchmarks import iteration

import chainer
import numpy
import pytest


def test_every_method_is_timed_beside_static_loss_scaling(tmp_path, capsys):
    # Without plain Chainer, which takes seconds.
    options = ['--turns', '1', '--no-plain', '--policy', 'amax', '--policy', 'adaptive']
    assert main(['benchmark', *options, '--out', str(tmp_path)]) == 0
    table = capsys.readouterr().out
    content = json.loads((tmp_path / 'benchmark-cnn.json').read_text())
    rows = content['rows']
    ways = [*(f'interval {n}' for n in (1, 10, 100)), 'compute float16']
    scaled = [f'{name}, {way}' for name in ('amax', 'adaptive') for way in ways]
    assert [row['method'] for row in rows] == ['fp32', 'fixed', *scaled]
    for row in rows:
        assert row['fastest'] <= row['median'] <= row['slowest']
        assert row['method'] in table and row['peak_memory'] > 0
        assert (row['scaling'] > 0) == (row['method'] in scaled)
        # Kept scales need no statistics, but those of amax's weight gradients are never kept.
        keeps = row['method'].startswith('adaptive') and row['method'].endswith('0')
        measures = row['method'] in scaled and not keeps
        assert (row['statistics'] > 0) == measures and row['statistics'] <= row['scaling'] < 1
    assert rows[1]['ratio'] == 1
    overhead = table[table.index('share of an iteration') :].splitlines()[1 : 2 + len(scaled)]
    theirs = 'the authors: SSD512, a GPU without cuDNN'
    assert [line[:40].strip() for line in overhead] == [*scaled, theirs]
    assert overhead[-1].split()[-2:] == ['27.1%', '48.8%']
    assert 'CPU' in content['device'] and content['batch_size'] == 32
    for rate in content['bandwidth']:
        assert rate['statistics'] > 0 and rate['copy'] > 0


def test_plain_chainer_is_compared_unless_it_is_left_out():
    assert iteration.PLAIN in iteration.methods(['adaptive'])
    assert iteration.PLAIN not in iteration.methods(['adaptive'], with_plain=False)


@pytest.mark.slow
@pytest.mark.parametrize('name', iteration.WORKLOADS)
def test_every_workload_is_trained_by_every_method(name):
    device = chainer.get_device('@numpy')
    for dtype, prepare in iteration.methods(['adaptive'], with_plain=False).values():
        with chainer.using_config('dtype', dtype):
            model, arguments = iteration.get_workload(name, device).prepare()
        optimizer = prepare(chainer.optimizers.SGD(1e-3), model)
        optimizer.update(model, *arguments)
        assert all(numpy.isfinite(param.array).all() for param in model.params())


def test_a_model_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['benchmark', '--model', 'transformer'])
    assert ended.value.code == 2 and capsys.readouterr().err.count('\n') == 1
