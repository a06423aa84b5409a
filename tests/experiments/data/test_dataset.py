from experiments.config.errors import DataError
from experiments.data.dataset import first_examples, first_of_each_class

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

CLASSES = st.lists(st.integers(0, 5), min_size=1, max_size=50).map(numpy.array)


@given(CLASSES, st.data())
def test_of_each_class_there_are_as_many_as_can_be(classes, data):
    size = data.draw(st.integers(1, len(classes)))
    chosen = first_of_each_class(classes, size, 'here')
    assert len(chosen) == size and (numpy.diff(chosen) > 0).all()
    there, used = numpy.bincount(classes), numpy.bincount(classes[chosen], minlength=6)
    most = used.max()
    for label, count in enumerate(there):
        # Either all of a class are used, or no other class has two more.
        assert used[label] == count or used[label] >= most - 1
        # They are the first ones.
        places = numpy.flatnonzero(classes == label)[: used[label]]
        assert set(places) <= set(chosen)


@given(CLASSES, st.data())
def test_a_larger_setting_has_all_of_a_smaller_one(classes, data):
    size = data.draw(st.integers(1, len(classes)))
    smaller = data.draw(st.integers(1, size))
    chosen = [set(first_of_each_class(classes, n, 'here')) for n in (smaller, size)]
    assert chosen[0] <= chosen[1]


def test_none_is_all_and_too_many_is_an_error():
    classes = numpy.array([2, 0, 1])
    assert first_of_each_class(classes, None, 'here').tolist() == [0, 1, 2]
    assert first_examples('abc', None, 'here') == 'abc'
    assert first_examples('abc', 2, 'here') == 'ab'
    with pytest.raises(DataError, match='here: given 4 examples to use, allowed: at most 3'):
        first_of_each_class(classes, 4, 'here')
