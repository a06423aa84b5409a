"""The configs of the paper's experiments say what the paper, or the model's own paper, says."""

import pathlib
import re

from experiments.config import Config, label, loading
from experiments.reports import published

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((ROOT / 'configs').glob('*.yaml'))}
SMALL = [name for name in CONFIGS if name.endswith('-small')]
STUDY = [name for name in CONFIGS if name.startswith('study_')]  # of ours, and small by itself
OURS = ['digits_mlp', 'text_transformer']  # likewise, of data that is always there
FULL = [name for name in CONFIGS if name not in (*SMALL, *STUDY, *OURS)]
CIFAR = [f'cifar{classes}_resnet{depth}' for classes in (10, 100) for depth in (20, 56, 110)]
MORE_CIFAR = ['cifar10_vgg16', 'cifar10_resnet164']
KNOBS = [f'cifar10_resnet20_{what}' for what in ('thresholds', 'intervals', 'policies')]
# The authors' runs of the first paper are by their formula of 2019, those on CIFAR in these bounds.
WIDE = 'max_scale=128-max_total_scale=4096'
PRODUCT = 'variance=product'


def load(name):
    return loading.load(str(CONFIGS[name]))


def own(name):
    """What the file itself says."""
    return yaml.safe_load(CONFIGS[name].read_text())


def ways(name):
    """The ways of scaling that are swept over, with all their options in place of a label."""
    return [label(way.model_copy(update={'label': None})) for way in load(name).sweep.scaling]


def test_every_experiment_of_the_paper_is_there():
    images = {'imagenet_resnet18', 'imagenet_resnet50', 'voc_ssd300', 'voc_ssd512'}
    others = {'mnist_cnn', 'voc_ssd512_batch32', 'camvid_segnet'}
    others |= {'voc_ssd512_unbounded', 'voc_ssd300_scaled_cast'}
    assert set(FULL) == {*CIFAR, *MORE_CIFAR, *KNOBS, *images, *others}


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_is_valid_and_names_its_results_after_its_file(name):
    config = load(name)
    assert isinstance(config, Config)
    assert config.name == name
    method = 'per_sample' if name in STUDY else 'adaptive'
    # That one compares ways of scaling on the weights of a float32 training, and trains no other.
    method = 'fp32' if name == 'study_ssd300_seeds' else method
    assert config.single().scaling.method == method
    runs = [run.run_name for run in config.runs()]
    assert len(set(runs)) == len(runs)


# The authors report none for it.
@pytest.mark.parametrize('name', [name for name in CONFIGS if name != 'voc_ssd512_batch32'])
def test_a_sweep_has_fp32_to_compare_with(name):
    assert 'fp32' in ways(name)


@pytest.mark.parametrize('name', CONFIGS)
def test_train_runs_one_of_the_ways_that_sweep_does(name):
    config = load(name)
    single = config.single().scaling.model_copy(update={'label': None})
    assert label(single) in ways(name)


@pytest.mark.parametrize('name', FULL)
def test_an_experiment_has_a_small_one_beside_it_with_its_model_and_its_scaling(name):
    full, small = load(name), load(f'{name}-small')
    assert small.scaling == full.scaling
    of_model = 'name', 'depth', 'size', 'variant', 'scaled_cast', 'batch_normalization'
    for section, keys in (('dataset', ('name', 'classes')), ('model', of_model)):
        theirs, its = getattr(full, section), getattr(small, section)
        for key in keys:
            assert getattr(its, key, None) == getattr(theirs, key, None)


@pytest.mark.parametrize('name', SMALL)
def test_a_small_config_builds_in_the_end_on_a_full_one(name):
    chain = [name]
    while 'base' in own(chain[-1]):
        chain.append(pathlib.Path(own(chain[-1])['base']).stem)
    assert chain[-1] in FULL


@pytest.mark.parametrize('name', SMALL)
def test_a_small_config_is_for_the_cpu(name):
    config = load(name)
    assert config.loading.workers == 0
    assert config.sweep.seeds == (0,)
    assert config.train.batch_size <= 100
    assert (config.train.iterations or 0) <= 1000


def test_text_is_for_the_cpu_too_and_compares_what_the_small_ones_do():
    config = load('text_transformer')
    assert config.task == 'language'
    assert config.train.batch_size <= 32 and config.train.iterations <= 300
    compared = ['fp32', 'none', 'fixed-scale=128', 'adaptive', 'per_sample']
    assert ways('text_transformer') == [*compared, 'amax-dtype=float32-compute=float16']


@pytest.mark.parametrize('name', [name for name in SMALL if 'cifar' not in name])
def test_a_small_config_looks_for_the_samples_where_make_data_puts_them(name):
    made = re.search(r'^data:.*?\n\n', (ROOT / 'Makefile').read_text(), re.M | re.S).group()
    linked = re.search(r'for name in (.*?);', made).group(1).split()
    assert load(name).dataset.folder in [f'data/{folder}' for folder in linked]


@pytest.mark.parametrize('name', CIFAR)
def test_cifar_is_trained_as_the_authors_did(name):
    config = load(name)
    classes, depth = map(int, re.findall(r'\d+', name))
    assert (config.dataset.classes, config.model.depth) == (classes, depth)
    assert config.dataset.augment and config.dataset.train_size is None
    assert (config.train.epochs, config.train.batch_size) == (164, 128)
    assert (config.optimizer.name, config.optimizer.lr) == ('momentum_sgd', 0.1)
    assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0.9, 1e-4)
    step, warmup = config.schedule.step, config.schedule.warmup
    assert (step.epochs, step.factor) == ((81, 122), 0.1)
    if depth == 110:
        assert (warmup.epochs, warmup.factor, warmup.shape) == (5, 0.1, 'constant')
    else:
        assert warmup is None


@pytest.mark.parametrize('name', CIFAR)
def test_cifar_compares_the_ways_of_scaling_that_the_authors_did(name):
    fixed = [f'fixed-scale={scale}' for scale in (16, 128, 1024, 4096, 8192, 16384)]
    adaptive = [f'adaptive-{WIDE}-{PRODUCT}', f'adaptive-interval=1000-{WIDE}-{PRODUCT}']
    assert ways(name) == ['fp32', 'none', *fixed, 'dynamic', *adaptive]
    assert load(name).sweep.seeds == (0, 1, 2)
    assert load(name).model.variant == 'zhao'


def test_what_is_swept_over_besides_is_one_knob():
    found = {name: [way.replace(f'-{WIDE}', '') for way in ways(name)] for name in KNOBS}
    adaptive = 'adaptive-variance=product'
    rates = [f'adaptive-threshold={rate}-variance=product' for rate in ('1e-05', '0.0001')]
    rates += [adaptive, *(f'adaptive-threshold={rate}-variance=product' for rate in (0.01, 0.1))]
    assert found['cifar10_resnet20_thresholds'] == ['fp32', *rates]
    kept = [f'adaptive-interval={n}-variance=product' for n in (10, 100, 1000)]
    assert found['cifar10_resnet20_intervals'] == ['fp32', adaptive, *kept]
    others = ['abs_range', 'element_wise_range', 'log_normal']
    assert found['cifar10_resnet20_policies'] == ['fp32', 'none', adaptive, *others]


@pytest.mark.parametrize('entry', published.NUMBERS, ids=str)
def test_each_published_number_stands_beside_a_run_of_its_setting(entry):
    runs = [run for name in FULL for run in load(name).runs()]
    beside = [run for run in runs if published.find(run.model_dump()) is entry]
    assert len({(run.dataset, run.model, run.optimizer) for run in beside}) == 1


def test_no_number_stands_beside_a_run_of_a_config_that_was_changed():
    run = load('imagenet_resnet50').single().model_dump()
    assert published.find(run) is not None
    for section, key, value in [
        *(('train', 'max_iterations', 5), ('train', 'workers', None), ('train', 'epochs', 45)),
        *(('dataset', 'normalization', 'channel'), ('scaling', 'interval', 10)),
    ]:
        assert published.find({**run, section: {**run[section], key: value}}) is None


@pytest.mark.parametrize(
    'name, size, batch',
    [
        *(('voc_ssd300', 300, 8), ('voc_ssd300_scaled_cast', 300, 8), ('voc_ssd512', 512, 8)),
        *(('voc_ssd512_unbounded', 512, 8), ('voc_ssd512_batch32', 512, 32)),
    ],
)
def test_ssd_is_trained_as_liu_et_al_did_in_the_authors_batches(name, size, batch):
    config = load(name)
    assert (config.dataset.size, config.model.size, config.model.width) == (size, size, 1)
    assert config.dataset.train == ('VOC2007/trainval', 'VOC2012/trainval')
    assert config.dataset.test == ('VOC2007/test',) and config.dataset.eleven_point
    assert (config.train.iterations, config.train.batch_size) == (120000, batch)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-3, 5e-4)
    assert config.schedule.step.iterations == (80000, 100000)
    assert config.model.pretrained is not None


def test_segnet_is_trained_as_its_authors_did():
    config = load('camvid_segnet')
    assert (config.optimizer.lr, config.optimizer.momentum) == (0.1, 0.9)
    assert (config.train.batch_size, config.model.channels) == (12, 64)
    assert config.dataset.crop is None
