"""Functions are patched once; what a module is given for its import is there for no longer."""

import importlib
import inspect
import sys
import types

from chainerlp.compat import patching

import numpy
import pytest


class Owner:
    def method(self, x, y=2):
        """Adds."""
        return x + y


def doubled(method):
    def doubling(self, *args):
        return 2 * method(self, *args)

    return doubling


def test_a_method_is_patched_once_and_keeps_its_name_documentation_and_signature():
    original = Owner.method
    for _ in range(2):
        patching.patch(Owner, 'method', doubled)
    assert Owner().method(1) == 6
    assert Owner.method.__wrapped__ is original
    assert Owner.method.__name__ == 'method'
    assert Owner.method.__doc__ == 'Adds.'
    assert inspect.signature(Owner.method) == inspect.signature(original)


def test_an_overlay_falls_through_to_the_module():
    overlay = patching.Overlay(numpy, float=float, abs=None)
    assert overlay.float is float
    assert overlay.abs is None
    assert overlay.float16 is numpy.float16
    with pytest.raises(AttributeError, match='no_such_name'):
        overlay.no_such_name  # noqa: B018


def test_an_overlay_may_have_any_name_of_its_own():
    assert patching.Overlay(numpy, module=1, self=2).self == 2


def which_float():
    return numpy.float, numpy.float16


def test_only_the_function_that_was_built_sees_other_globals():
    overlay = patching.Overlay(numpy, float=str)
    patched = patching.with_globals(numpy=overlay)(which_float)
    assert patched() == (str, numpy.float16)
    assert getattr(numpy, 'float', None) is not str
    assert patched.__code__ is which_float.__code__


FURTHER = types.SimpleNamespace(answer=42)
SOURCE = """
import further_module
import numpy
found = further_module.answer, numpy.further_name
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a patch for an importable module `patched`; afterwards all is as it was."""
    (tmp_path / 'patched.py').write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))

    def install_it(module=FURTHER, after=None):
        patch = patching.ImportPatch({'further_module': module}, {'further_name': 'name'}, after)
        patching.install_finder({'patched': patch})

    yield install_it
    sys.modules.pop('patched', None)


def test_an_import_patch_lasts_for_the_execution_of_one_module(install):
    install()
    module = importlib.import_module('patched')
    assert module.found == (42, 'name')
    assert 'further_module' not in sys.modules
    assert not hasattr(numpy, 'further_name')
    assert inspect.getsource(module) == SOURCE


def test_a_function_is_called_with_the_module_once_it_is_there(install):
    def after(module):
        module.seen = module.found, 'further_module' in sys.modules

    install(after=after)
    assert importlib.import_module('patched').seen == ((42, 'name'), False)


def test_an_import_patch_ends_with_an_error_too(install):
    install(types.SimpleNamespace())
    with pytest.raises(AttributeError, match='answer'):
        importlib.import_module('patched')
    assert 'further_module' not in sys.modules
    assert not hasattr(numpy, 'further_name')
    assert 'patched' not in sys.modules


def test_a_module_that_is_there_is_used(install, monkeypatch):
    monkeypatch.setitem(sys.modules, 'further_module', types.SimpleNamespace(answer='its own'))
    install()
    assert importlib.import_module('patched').found == ('its own', 'name')
    assert sys.modules['further_module'].answer == 'its own'


def test_a_forbidden_module_is_given_and_then_forbidden_again(install, monkeypatch):
    monkeypatch.setitem(sys.modules, 'further_module', None)
    install()
    assert importlib.import_module('patched').found == (42, 'name')
    assert sys.modules['further_module'] is None


def test_there_is_at_most_one_finder(install):
    def finders():
        return [finder for finder in sys.meta_path if type(finder).__name__ == 'PatchingFinder']

    install()
    install()
    assert len(finders()) == 1
    assert finders()[0].find_spec('json') is None
    assert finders()[0].find_spec('patched', ['/no/such/folder']) is None
    patching.install_finder({})
    assert finders() == []
