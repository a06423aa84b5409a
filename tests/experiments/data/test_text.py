import importlib.resources
import string

from experiments.config.dataset import Text
from experiments.config.errors import DataError
from experiments.data import load as load_data
from experiments.data import text

import numpy
import pytest


def loaded(**fields):
    return load_data(Text(name='text', **fields), numpy.dtype('float16'))


@pytest.fixture
def short(monkeypatch):
    """A text of 26 different characters: one is known by its class."""
    monkeypatch.setattr(text, '_read', lambda: string.ascii_uppercase)


def shown(data, part):
    """Returns the examples of a part, each a pair of strings: characters, and those that follow."""
    return [
        tuple(''.join(data.class_names[c] for c in characters) for characters in example)
        for example in getattr(data, part)
    ]


def test_an_example_is_continued_at_each_of_its_positions(short):
    data = loaded(length=4, test_size=2)
    # Of 26 characters the last 2 * 4 + 1 are the test set's, and 17 are left.
    expected = [('abcd', 'bcde'), ('efgh', 'fghi'), ('ijkl', 'jklm'), ('mnop', 'nopq')]
    assert shown(data, 'train') == expected
    assert shown(data, 'test') == [('rstu', 'stuv'), ('vwxy', 'wxyz')]
    assert data.shape == (4,)


def test_the_characters_are_classes_in_int32_whatever_the_dtype():
    data = loaded()
    assert data.shape == (32,) and data.classes == len(set(data.class_names)) < 100
    for part, size in ((data.train, 1000), (data.test, 200)):
        assert len(part) >= size
        for column in zip(*part):
            column = numpy.stack(column)
            assert column.dtype == numpy.int32 and column.shape == (len(part), 32)
            assert 0 <= column.min() and column.max() < data.classes


def test_the_text_is_what_scikit_learn_ships_in_the_order_of_the_names():
    folder = importlib.resources.files('sklearn.datasets.descr')
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith('.rst'))
    assert len(names) > 10
    first, last = (
        ' '.join((folder / name).read_text(encoding='utf-8').lower().split())
        for name in (names[0], names[-1])
    )
    data = loaded(test_size=1)
    assert first.startswith(shown(data, 'train')[0][0].strip())
    assert last.endswith(shown(data, 'test')[0][1].strip())


def test_capitals_are_small_white_space_is_one_space_and_the_rest_is_left_out():
    names = loaded().class_names
    given = 'The  8\u00d78\n\t Pixels, \u00e9t\u00e9 \u00d7 [1]_!'
    assert ''.join(names[c] for c in text.encode(given)) == 'the 88 pixels, t [1]_!'
    every = ' ' + string.ascii_lowercase + string.digits + string.punctuation
    assert sorted(names) == sorted(every)
    assert ''.join(names[c] for c in text.encode(every)) == every


@pytest.mark.parametrize('length, test_size', [(4, 2), (4, 5), (3, 1), (1, 23), (12, 1), (7, 2)])
def test_no_character_of_the_test_set_is_in_an_example_to_train_with(short, length, test_size):
    data = loaded(length=length, test_size=test_size)
    assert len(data.test) == test_size and len(data.train) >= 1
    train, test = (
        {character for pair in shown(data, part) for side in pair for character in side}
        for part in ('train', 'test')
    )
    assert not train & test
    assert max(test) == 'z' and min(train) == 'a'


def test_fewer_examples_to_train_with_are_evenly_spread(short):
    def begin(**fields):
        data = loaded(length=2, test_size=1, **fields)
        assert shown(data, 'test') == [('xy', 'yz')]
        return ''.join(characters[0] for characters, _ in shown(data, 'train'))

    assert begin() == 'acegikmoqsu'  # 11, of 23 characters
    assert begin(train_size=11) == begin()
    assert begin(train_size=3) == 'ago'
    assert begin(train_size=1) == 'a'


def test_the_split_does_not_depend_on_the_seed_of_the_day():
    numpy.random.seed(1)
    first = loaded(train_size=10)
    numpy.random.seed(2)
    again = loaded(train_size=10)
    for part in ('train', 'test'):
        assert shown(again, part) == shown(first, part)


@pytest.mark.parametrize(
    'fields, said',
    [
        ({'length': 13}, 'dataset.length: given 13, allowed: at most 12'),
        ({'length': 12, 'test_size': 2}, 'given 2 examples of 12 characters, allowed: at most 1,'),
        ({'length': 5, 'test_size': 4}, 'given 4 examples of 5 characters, allowed: at most 3, of'),
        ({'length': 4, 'test_size': 6}, 'given 6 examples of 4 characters, allowed: at most 5, of'),
        (
            {'length': 4, 'test_size': 2, 'train_size': 5},
            'dataset.train_size: given 5 examples to use, allowed: at most 4',
        ),
    ],
)
def test_more_than_the_text_has_is_an_error(short, fields, said):
    with pytest.raises(DataError) as error:
        loaded(**{'test_size': 1, **fields})
    assert said in str(error.value) and '\n' not in str(error.value)
