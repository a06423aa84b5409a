"""A function sees a module with further names; the module has none of them."""

from chainerlp.compat import namespaces

import numpy
import pytest


def which_float():
    return numpy.float, numpy.float16


def test_a_namespace_falls_through_to_the_module():
    namespace = namespaces.With(numpy, float=float, abs=None)
    assert namespace.float is float
    assert namespace.abs is None
    assert namespace.float16 is numpy.float16
    with pytest.raises(AttributeError, match='no_such_name'):
        namespace.no_such_name  # noqa: B018


def test_a_namespace_may_have_any_name_of_its_own():
    assert namespaces.With(numpy, module=1, self=2).self == 2


def test_only_the_function_that_was_built_sees_the_names():
    seeing_float = namespaces.seeing(numpy=namespaces.With(numpy, float=str))(which_float)
    assert seeing_float() == (str, numpy.float16)
    assert getattr(numpy, 'float', None) is not str
    assert seeing_float.__code__ is which_float.__code__
