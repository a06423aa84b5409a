"""The configs of the paper's experiments say what the paper, or the model's own paper, says."""

import pathlib
import re

from experiments.config import Config, label, loading

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((ROOT / 'configs').glob('*.yaml'))}
SMALL = [name for name in CONFIGS if name.endswith('-small')]
STUDY = [name for name in CONFIGS if name.startswith('study_')]  # of ours, and small by itself
OURS = ['digits_mlp', 'text_transformer']  # likewise, of data that is always there
FULL = [name for name in CONFIGS if name not in (*SMALL, *STUDY, *OURS)]
CIFAR = [f'cifar{classes}_resnet{depth}' for classes in (10, 100) for depth in (20, 56, 110)]
# The CIFAR runs of the authors are with these bounds.
WIDE = 'max_scale=128-max_total_scale=4096'


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
    assert set(FULL) == {*CIFAR, *images, *others}


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
    for section, keys in (('dataset', ('name', 'classes')), ('model', ('name', 'depth', 'size'))):
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
    adaptive = [f'adaptive-{WIDE}', f'adaptive-interval=1000-{WIDE}']
    assert ways(name) == ['fp32', 'none', *fixed, 'dynamic', *adaptive]
    assert load(name).sweep.seeds == (0, 1, 2)


@pytest.mark.parametrize(
    'name, expected',
    [
        (
            'imagenet_resnet18',
            ['fp32', 'none', 'fixed-scale=128', 'adaptive', 'adaptive-interval=1000'],
        ),
        ('imagenet_resnet50', ['fp32', 'none', 'fixed-scale=128', 'adaptive', f'adaptive-{WIDE}']),
        (
            'voc_ssd512',
            [
                *('fp32', 'none', 'fixed-scale=8', 'fixed-scale=128', 'fixed-scale=256'),
                *('adaptive', 'adaptive-interval=10'),
            ],
        ),
        ('voc_ssd512_batch32', ['none', 'fixed-scale=128', 'adaptive']),
        ('voc_ssd300', ['fp32', 'fixed-scale=4096', 'adaptive']),
        ('camvid_segnet', ['fp32', 'adaptive-max_scale=65504-max_total_scale=65504']),
    ],
)
def test_larger_experiments_compare_what_the_authors_report(name, expected):
    found = [way.replace('-initial_scale=auto', '') for way in ways(name)]
    # Dynamic loss scaling doubles the scale after 10 updates in all of them.
    assert sorted(found) == sorted([*expected, 'dynamic-interval=10'])


@pytest.mark.parametrize('name, depth', [('imagenet_resnet18', 18), ('imagenet_resnet50', 50)])
def test_imagenet_is_trained_as_goyal_et_al_did(name, depth):
    config = load(name)
    assert config.model.depth == depth and config.model.zero_init_residual
    assert (config.train.epochs, config.train.batch_size) == (90, 256)
    assert (config.optimizer.lr, config.optimizer.momentum) == (0.1, 0.9)
    assert config.optimizer.weight_decay == 1e-4
    assert config.schedule.step.epochs == (30, 60, 80)
    assert (config.dataset.size, config.dataset.augment) == (224, True)


@pytest.mark.parametrize(
    'name, size, batch',
    [('voc_ssd300', 300, 8), ('voc_ssd512', 512, 8)] + [('voc_ssd512_batch32', 512, 32)],
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
