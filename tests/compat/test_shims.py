"""Chainer's checks of what is installed, on the shim for pkg_resources."""

import unittest

from chainerlp.compat import shims

import chainer.testing
import numpy
import pytest


@pytest.mark.parametrize(
    'requirements',
    [
        [],
        ['numpy'],
        ['numpy>=1.10'],
        ['numpy', f'numpy=={numpy.__version__}'],
        ['no-such-package; python_version < "3"'],
    ],
)
def test_what_is_installed_is_found(requirements):
    shims.WorkingSet().require(*requirements)


@pytest.mark.parametrize(
    'requirements, error',
    [
        (['no-such-package'], shims.DistributionNotFound),
        (['numpy', 'no-such-package>=1'], shims.DistributionNotFound),
        (['numpy<1.10'], shims.VersionConflict),
    ],
)
def test_what_is_not_installed_is_an_unresolved_requirement(requirements, error):
    with pytest.raises(error):
        shims.WorkingSet().require(*requirements)
    assert issubclass(error, shims.ResolutionError)


def test_chainers_own_check_finds_nothing_to_warn_of():
    with pytest.raises(shims.DistributionNotFound):
        shims.require('cupy>=7.7.0,<8.0.0')


@pytest.mark.parametrize(
    'decorate, runs',
    [
        (chainer.testing.with_requires('numpy>=1.10'), True),
        (chainer.testing.with_requires('numpy<1.10'), False),
        (chainer.testing.without_requires('no-such-package'), True),
    ],
)
def test_tests_that_require_something_run_if_it_is_there(decorate, runs, monkeypatch):
    class Case(unittest.TestCase):
        @decorate
        def test_it(self):
            pass

    result = unittest.TestResult()
    Case('test_it').run(result)
    assert (result.testsRun, len(result.skipped)) in ([(1, 0)] if runs else [(0, 1), (1, 1)])
