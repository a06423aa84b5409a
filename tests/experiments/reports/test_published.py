"""The authors' numbers stand where task and method are theirs, and the table is like theirs."""

from experiments.config import loading
from experiments.reports import published, run_folder

import pytest


def finished(name, accuracy, scaling=None):
    return run_folder.RunFolder(
        f'results/cifar/{name}',
        config={'name': 'cifar', 'scaling': scaling or {'method': 'none'}},
        result={'metric': 'accuracy', 'accuracy': accuracy},
    )


@pytest.mark.parametrize(
    'scaling, number',
    [
        (dict(method='adaptive', interval=1), '71.48 (top-1, %)'),
        (dict(method='adaptive', interval=1000), '71.29 (top-1, %)'),
        (dict(method='adaptive', interval=10), None),
        (dict(method='fixed', scale=128.0), '71.39 (top-1, %)'),
        (dict(method='fixed', scale=16.0), None),
        (dict(method='none'), '71.24 (top-1, %)'),
        (dict(method='amax'), None),
    ],
)
def test_the_authors_numbers_stand_where_task_and_method_are_theirs(scaling, number):
    task = dict(dataset=dict(name='imagenet'), model=dict(name='resnet_imagenet', depth=18))
    assert published.number(dict(task, scaling=scaling)) == number
    assert published.number(dict(dataset=dict(name='digits'), scaling=scaling)) is None


def test_a_config_with_values_that_no_version_has_has_no_number():
    odd = [[1], {'a': [1]}, None, 'x', 1.5]
    for value in odd:
        task = dict(dataset={'name': value}, model={'name': 'ssd', 'size': value})
        assert published.number(dict(task, scaling={'method': value})) is None
        task = dict(dataset={'name': 'voc'}, model={'name': 'ssd', 'size': 512})
        config = dict(task, train={'batch_size': 8}, scaling={'method': value, 'scale': value})
        assert published.number(config) is None


@pytest.mark.parametrize(
    ('size', 'batch_size', 'scaling', 'number'),
    [
        (512, 8, {'method': 'adaptive'}, '79.27 (mAP, %)'),
        (512, 32, {'method': 'none'}, 'diverged (mAP, %)'),
        (300, 8, {'method': 'fixed', 'scale': 4096.0}, '76.23 (mAP, %)'),
        (300, 4, {'method': 'adaptive'}, None),
    ],
)
def test_the_authors_numbers_are_those_of_the_size_and_the_batch(size, batch_size, scaling, number):
    config = dict(
        dataset=dict(name='voc'),
        model=dict(name='ssd', size=size),
        train=dict(batch_size=batch_size),
        scaling=scaling,
    )
    assert published.number(config) == number


def test_a_knob_of_its_own_has_a_number_of_its_own():
    task = dict(dataset=dict(name='imagenet'), model=dict(name='resnet_imagenet', depth=50))
    scaling = dict(method='adaptive', max_scale=128.0, max_total_scale=4096.0, interval=1)
    assert published.number(dict(task, scaling=scaling)) == '76.22 (top-1, %)'
    scaling['interval'] = 1000
    assert published.number(dict(task, scaling=scaling)) is None
    scaling = dict(method='adaptive')
    assert published.number(dict(task, scaling=scaling)) == '76.07 (top-1, %)'


@pytest.mark.parametrize(
    'name', ['imagenet_resnet18-small', 'camvid_segnet-small', 'voc_ssd300-small']
)
def test_a_small_training_is_not_set_beside_a_published_number(name):
    config = loading.load(f'configs/{name}.yaml', []).single()
    assert published.number(config.model_dump()) is None
    full = loading.load(f'configs/{name.replace("-small", "")}.yaml', []).single()
    assert published.number(full.model_dump()) is not None


def test_the_papers_table_has_a_row_a_way_of_scaling_and_the_mean_over_seeds():
    header, rows = published.table(
        [
            finished('none-seed=0', 0.90),
            finished('adaptive-seed=0', 0.95),
            finished('none-seed=1', 0.92),
        ]
    )
    assert header == ['scaling', 'cifar, accuracy %']
    # The sample standard deviation of 90 and 92 is the root of 2.
    assert rows == [['none', '91.00 ± 1.41'], ['adaptive', '95.00']]
