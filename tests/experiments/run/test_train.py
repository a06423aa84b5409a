import csv
import json
import pathlib

from chainerlp.extensions import files
from experiments.config import loading
from experiments.run import optimizers, train
from experiments.run.launch import Launch, get_device
from experiments.run.log import THROUGHPUT_KEYS
from experiments.tasks import classification

import chainer
import numpy
import pytest
import threadpoolctl
from chainer import training

FLOAT16 = {
    'none': {},
    'fixed': {'scale': 128},
    'dynamic': {'interval': 10},
    'adaptive': {'threshold': 0.01},
    'amax': {'margin': 2},
    'measured': {'threshold': 0.01},
}


class Weights(training.Extension):
    """Notes the weights before the first update and after the last."""

    def initialize(self, trainer):
        self.model = trainer.updater.get_optimizer('main').target
        self.before = self._copy()

    def __call__(self, trainer):
        self.after = self._copy()

    def _copy(self):
        return {name: param.array.copy() for name, param in self.model.namedparams()}


def run(tiny, folder, overrides=(), extras=(), fresh=False):
    config = loading.load(tiny, overrides).single()
    launch = Launch(get_device('@numpy'), fresh=fresh)
    return train.run(config, str(folder), launch, extras)


def scaled_by(method, **options):
    return 'scaling=' + json.dumps({'method': method, **options})


def log_of(folder):
    entries = json.loads((folder / 'log').read_text())
    for entry in entries:
        for key in ('elapsed_time', *THROUGHPUT_KEYS):
            del entry[key]
    return entries


def scales_of(folder):
    with open(folder / 'scales.csv', newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('dtype', ['mixed16', 'float16'])
@pytest.mark.parametrize('method', FLOAT16)
def test_every_method_trains_in_float16(tiny, tmp_path, method, dtype):
    weights = Weights()
    overrides = [scaled_by(method, dtype=dtype, **FLOAT16[method])]
    result = run(tiny, tmp_path, overrides, [weights])
    assert result.error is None and not result.diverged
    assert 0 <= result.value <= 1 and result.loss < 2.3
    assert result.skipped == 0 and result.seconds > 0
    assert all(w.dtype == numpy.float16 for w in weights.after.values())
    assert all((weights.after[k] != weights.before[k]).any() for k in weights.before)


def test_fp32_trains_in_float32(tiny, tmp_path):
    weights = Weights()
    result = run(tiny, tmp_path, [scaled_by('fp32')], [weights])
    assert result.error is None and result.loss < 2.3
    assert all(w.dtype == numpy.float32 for w in weights.after.values())


def test_the_folder_tells_the_whole_run(tiny, tmp_path):
    result = run(tiny, tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.name != 'tiny.yaml'} == {
        *('.lock', 'config.yaml', 'log', 'result.json', 'run.json', 'scales.csv'),
        'snapshot_iter_4',
    }
    last = log_of(tmp_path)[-1]
    assert last['iteration'] == 4
    assert last['validation/main/accuracy'] == result.value
    assert {'main/loss', 'main/accuracy', 'scaling/underflow', 'scaling/skipped'} <= set(last)
    rows = scales_of(tmp_path)
    assert {row['iteration'] for row in rows} == {'1', '2', '3', '4'}
    assert {row['layer'] for row in rows} == {'/predictor/fc2', '/predictor/fc3'}
    mean = numpy.mean([float(row['underflow']) for row in rows])
    assert result.underflow.mean == pytest.approx(mean, rel=1e-12)


def test_its_config_runs_again_and_gives_the_same(tiny, tmp_path):
    overrides = ['scaling.max_scale=.inf', 'optimizer.lr=1e-5', 'seed=3']
    first = run(tiny, tmp_path / 'first', overrides)
    again = run(str(tmp_path / 'first' / 'config.yaml'), tmp_path / 'again')
    assert again.config == first.config
    assert log_of(tmp_path / 'again') == log_of(tmp_path / 'first')


@pytest.mark.parametrize('method', ['fp32', 'dynamic', 'measured'])
def test_the_same_seed_gives_the_same_bits(tiny, tmp_path, method):
    runs = []
    for name in ('first', 'second'):
        numpy.random.seed(len(runs))  # what happened before must not matter
        weights = Weights()
        run(tiny, tmp_path / name, [scaled_by(method)], [weights])
        runs.append((weights.after, log_of(tmp_path / name), scales_of(tmp_path / name)))
    (weights, log, scales), (weights_again, log_again, scales_again) = runs
    assert log == log_again and scales == scales_again
    assert all((weights[key] == weights_again[key]).all() for key in weights)


def test_another_seed_gives_another_training(tiny, tmp_path):
    run(tiny, tmp_path / 'a', ['seed=0'])
    run(tiny, tmp_path / 'b', ['seed=1'])
    assert log_of(tmp_path / 'a') != log_of(tmp_path / 'b')


def test_the_method_changes_nothing_before_the_first_backward_pass(tiny, tmp_path):
    losses, starts = {}, {}
    for method, options in FLOAT16.items():
        weights = Weights()
        overrides = [scaled_by(method, **options), 'train.max_iterations=1']
        run(tiny, tmp_path / method, overrides, [weights])
        losses[method] = log_of(tmp_path / method)[0]['main/loss']
        starts[method] = weights.before
    assert len(set(losses.values())) == 1
    for start in starts.values():
        assert all((start[key] == starts['none'][key]).all() for key in start)


def test_fp32_starts_from_the_same_weights_and_batch_but_for_their_rounding(tiny, tmp_path):
    both = {}
    for method in ('fp32', 'none'):
        weights = Weights()
        run(tiny, tmp_path / method, [scaled_by(method), 'train.max_iterations=1'], [weights])
        both[method] = weights.before, log_of(tmp_path / method)[0]['main/loss']
    (weights, loss), (rounded, rounded_loss) = both['fp32'], both['none']
    for key in weights:
        assert (weights[key].astype(numpy.float16) == rounded[key]).all()
    assert rounded_loss == pytest.approx(loss, rel=1e-2)


def test_a_run_leaves_the_settings_of_the_process_as_they_were(tiny, tmp_path):
    def settings():
        return (
            chainer.global_config.dtype,
            chainer.config.dtype,
            chainer.config.train,
            numpy.random.get_state()[1].tolist(),
            numpy.geterr(),
        )

    before = settings()
    run(tiny, tmp_path)
    assert settings() == before


def test_skipped_updates_are_counted_for_dynamic_loss_scaling(tiny, tmp_path):
    # The scale doubles at every update until it overflows; 20 doublings of 1 are far over 65504,
    # where Chainer's stops, so a loss weighted by a thousand has to overflow.
    overrides = [scaled_by('dynamic'), 'train.iterations=20', 'train.max_iterations=null']
    overrides += ['train.evaluate.iterations=1']  # the log's values are means
    weighted = pytest.MonkeyPatch()
    with weighted.context() as patch:
        loss = classification.loss
        patch.setattr(classification, 'loss', lambda y, t: 1000 * loss(y, t))
        result = run(tiny, tmp_path, [*overrides, 'optimizer.lr=1e-5'])
    assert result.error is None
    assert 0 < result.skipped < 20
    assert result.skipped == log_of(tmp_path)[-1]['scaling/skipped']


def test_a_training_that_ends_in_nan_is_a_result(tiny, tmp_path):
    result = run(tiny, tmp_path, [scaled_by('none'), 'optimizer.lr=1e6', 'train.max_iterations=8'])
    assert result.error is None
    assert result.diverged
    assert (tmp_path / 'snapshot_iter_8').exists()


def test_a_training_that_fails_is_a_result_and_leaves_its_traceback(tiny, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError('two\nlines')

    monkeypatch.setattr(optimizers, 'setup', fail)
    result = run(tiny, tmp_path)
    assert result.error == 'ValueError: two lines'
    assert not result.diverged
    assert 'in fail' in (tmp_path / 'error.txt').read_text()


def test_a_fresh_run_replaces_what_an_earlier_one_left_and_other_files_stay(tiny, tmp_path):
    run(tiny, tmp_path)
    (tmp_path / 'error.txt').write_text('of an earlier run')
    (tmp_path / 'notes.txt').write_text('of the user')
    run(tiny, tmp_path, ['train.max_iterations=2'], fresh=True)
    assert not (tmp_path / 'error.txt').exists()
    assert not (tmp_path / 'snapshot_iter_4').exists()
    assert (tmp_path / 'notes.txt').exists()
    assert {row['iteration'] for row in scales_of(tmp_path)} == {'1', '2'}


def test_underflow_is_measured_at_the_interval(tiny, tmp_path):
    run(tiny, tmp_path, ['report.interval=3'])
    assert {row['iteration'] for row in scales_of(tmp_path)} == {'3'}


def test_a_run_too_short_to_be_measured_has_no_underflow(tiny, tmp_path):
    result = run(tiny, tmp_path, ['report.interval=100'])
    assert result.error is None
    assert numpy.isnan(result.underflow.mean)


def test_a_disk_that_is_full_for_a_moment_leaves_a_mark(cli, tiny, tmp_path, monkeypatch):
    append, failing = files.append, [2, 3]

    def full(path, rows):
        if rows[0].iteration in failing and path.endswith('scales.csv'):
            raise OSError(28, 'No space left on device', path)
        append(path, rows)

    monkeypatch.setattr(files, 'append', full)
    lacks = 'scales.csv lacks 2 of 4 iterations'
    with pytest.warns(
        RuntimeWarning, match='iteration 3 is missing in .*scales.csv: No space left'
    ):
        code, out, err = cli('train', tiny, '-o', 'report.interval=1')
    assert code == 1 and f'incomplete: adaptive-seed=0: {lacks}' in out.splitlines()
    assert f'; incomplete: {lacks}' in err
    result = json.loads((tmp_path / 'out/tiny/adaptive-seed=0/result.json').read_text())
    assert result['incomplete'] == lacks
    assert cli('sweep', tiny, '-o', 'report.interval=1')[0] == 1
    summary = (tmp_path / 'out' / 'tiny' / 'summary.csv').read_text().splitlines()
    assert [line.endswith(lacks) for line in summary] == [False, True, True]


def test_the_training_ends_with_its_epochs_and_logs_each(tiny, tmp_path):
    # 1437 digits in batches of 128: two epochs end in the 12th and in the 23rd iteration.
    run(tiny, tmp_path, ['train.epochs=2', 'train.max_iterations=null'])
    assert [entry['iteration'] for entry in log_of(tmp_path)] == [12, 23]


def test_the_end_is_evaluated_even_if_it_ends_no_epoch(tiny, tmp_path):
    overrides = ['train.epochs=3', 'train.max_iterations=25', 'train.evaluate.epochs=2']
    run(tiny, tmp_path, overrides)
    entries = log_of(tmp_path)
    assert [entry['iteration'] for entry in entries] == [23, 25]
    assert all('validation/main/accuracy' in entry for entry in entries)


def test_every_test_example_counts_the_same(tiny, tmp_path):
    # 360 in batches of 128: 128, 128 and 104. A mean of the three means would not be k / 360.
    right = run(tiny, tmp_path).value * 360
    assert right == pytest.approx(round(right), abs=1e-3)


@pytest.fixture(scope='module')
def quickstart(tmp_path_factory):
    config = loading.load(str(pathlib.Path(__file__).parents[3] / 'configs' / 'digits_mlp.yaml'))

    def trained(index):
        single = config.single(config.sweep.scaling[index])
        folder = tmp_path_factory.mktemp(single.run_name)
        with threadpoolctl.threadpool_limits(1):  # as on the command line
            return train.run(single, str(folder), Launch(get_device('@numpy')))

    return {'fp32': trained(0), 'none': trained(1)}


def test_the_quickstart_learns(quickstart):
    assert quickstart['fp32'].value > 0.93
    assert quickstart['none'].value > 0.93


def test_in_the_quickstart_some_layer_underflows_by_over_a_tenth(quickstart):
    assert quickstart['none'].underflow.worst_layer > 0.1
