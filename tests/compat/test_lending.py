"""What is lent to a module is there while it is being executed, and then is gone."""

import dataclasses
import importlib
import inspect
import sys
import types

from chainerlp.compat import lending

import numpy
import pytest

BORROWER = """
import lent_module
import numpy
found = lent_module.answer, numpy.lent_name
"""


@pytest.fixture
def borrower(tmp_path, monkeypatch):
    """Makes a module `borrower` importable, and afterwards leaves everything as it was."""
    (tmp_path / 'borrower.py').write_text(BORROWER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    yield
    sys.modules.pop('borrower', None)


def make_loan():
    return lending.Loan(
        modules={'lent_module': types.SimpleNamespace(answer=42)},
        numpy_names={'lent_name': 'name'},
        keeps={'kept': 1},
    )


def test_a_loan_lasts_for_the_execution_of_one_module(borrower):
    lending.install({'borrower': make_loan()})
    module = importlib.import_module('borrower')
    assert module.found == (42, 'name')
    assert module.kept == 1
    assert 'lent_module' not in sys.modules
    assert not hasattr(numpy, 'lent_name')
    assert inspect.getsource(module) == BORROWER


def test_a_module_is_mended_once_it_is_there(borrower):
    def mend(module):
        module.seen = module.found, module.kept, 'lent_module' in sys.modules

    lending.install({'borrower': dataclasses.replace(make_loan(), mend=mend)})
    assert importlib.import_module('borrower').seen == ((42, 'name'), 1, False)


def test_a_loan_ends_with_an_error_too(borrower):
    loan = lending.Loan(modules={'lent_module': types.SimpleNamespace()})
    lending.install({'borrower': loan})
    with pytest.raises(AttributeError, match='answer'):
        importlib.import_module('borrower')
    assert 'lent_module' not in sys.modules
    assert 'borrower' not in sys.modules


def test_what_is_there_is_not_lent(borrower, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lent_module', types.SimpleNamespace(answer='its own'))
    lending.install({'borrower': make_loan()})
    assert importlib.import_module('borrower').found == ('its own', 'name')
    assert sys.modules['lent_module'].answer == 'its own'


def test_what_is_forbidden_is_lent_and_then_forbidden_again(borrower, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lent_module', None)
    lending.install({'borrower': make_loan()})
    assert importlib.import_module('borrower').found == (42, 'name')
    assert sys.modules['lent_module'] is None


def test_there_is_at_most_one_lender(borrower):
    def lenders():
        return [finder for finder in sys.meta_path if type(finder).__name__ == 'Lender']

    lending.install({'borrower': make_loan()})
    lending.install({'borrower': make_loan()})
    assert len(lenders()) == 1
    assert lenders()[0].find_spec('json') is None
    assert lenders()[0].find_spec('borrower', ['/no/such/folder']) is None
    lending.install({})
    assert lenders() == []
