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


def nested(setting):
    """A config, as a dict of dicts, that has a setting and nothing else."""
    config = {}
    for key, value in setting.items():
        *sections, last = key.split('.')
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return config


NUMBERS = pytest.mark.parametrize(
    'entry', published.NUMBERS, ids=lambda entry: f'{entry.source}: {entry.command}'
)


@NUMBERS
def test_a_number_stands_beside_its_setting_and_beside_no_other(entry):
    assert published.find(nested(entry.setting)) is entry
    for key in entry.setting:
        assert published.find(nested({**entry.setting, key: [['another']]})) is None or (
            entry.setting[key] == published.GIVEN
        )
        assert entry.differences(nested({**entry.setting, key: 'x'})) == (
            {} if entry.setting[key] == published.GIVEN else {key: (entry.setting[key], 'x')}
        )


def test_what_must_be_given_may_be_anything_but_null():
    entry = next(entry for entry in published.NUMBERS if published.GIVEN in entry.setting.values())
    config = nested(entry.setting)
    config['model']['pretrained'] = None
    assert entry.differences(config) == {'model.pretrained': (published.GIVEN, None)}


def test_a_run_of_before_there_was_an_option_is_one_without_it():
    entry = next(entry for entry in published.NUMBERS if 'model.scaled_cast' in entry.setting)
    assert published.find(
        nested({key: v for key, v in entry.setting.items() if key != 'model.scaled_cast'})
    )


@pytest.mark.parametrize(
    ('runs', 'text'),
    [
        ([79.27], '79.27 (mAP, %)'),
        ([], 'diverged (mAP, %)'),
        # Mean 78.8767; deviations from it -0.1667, 0.0033 and 0.1633 have the variance 0.02723.
        ([78.71, 78.88, 79.04], '78.88 ± 0.17, 3 runs (mAP, %)'),
    ],
)
def test_several_runs_of_the_authors_are_shown_with_their_spread(runs, text):
    entry = next(entry for entry in published.NUMBERS if list(entry.runs) == runs)
    assert str(entry) == published.number(nested(entry.setting)) == text


def test_a_config_with_values_that_no_version_has_has_no_number():
    for value in [[1], {'a': [1]}, None, 'x', 1.5]:
        task = dict(dataset={'name': value}, model={'name': 'ssd', 'size': value})
        assert published.number(dict(task, scaling={'method': value})) is None
        assert published.number(dict(task, scaling=value)) is None


@pytest.mark.parametrize(
    'name', ['imagenet_resnet18-small', 'camvid_segnet-small', 'voc_ssd300-small']
)
def test_a_small_training_is_not_set_beside_a_published_number(name):
    config = loading.load(f'configs/{name}.yaml', []).single()
    assert published.number(config.model_dump()) is None


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
