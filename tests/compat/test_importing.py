"""Which Chainer is imported, and what is in place, and what is not, once it is."""

import importlib
import importlib.util
import sys
import unittest

import chainerlp
from chainerlp.compat import importing
from chainerlp.compat.importing import PKG_RESOURCES

import chainer
import chainer.testing
import numpy
import pytest

ON_NUMPY_2 = int(numpy.__version__.split('.')[0]) >= 2
HAS_PKG_RESOURCES = importlib.util.find_spec('pkg_resources') is not None

INSTALL = (
    'pip install --upgrade "setuptools<81" wheel && pip install --no-build-isolation chainer==7.8.1'
)

# What Chainer lacks on NumPy 2, for a while, as somebody without chainerlp would help himself.
SHIMS = """
    import sys, types
    import numpy
    import numpy.random
    pkg_resources = types.ModuleType('pkg_resources')
    pkg_resources.DistributionNotFound = type('DistributionNotFound', (Exception,), {})
    def require(name):
        raise pkg_resources.DistributionNotFound
    pkg_resources.require = require
    system_info = types.ModuleType('numpy.distutils.system_info')
    system_info.get_info = lambda name: {}
    shims = {'pkg_resources': pkg_resources, 'numpy.distutils.system_info': system_info}
    sys.modules.update(shims)
    if 'sctypes' not in vars(numpy):
        numpy.sctypes = {
            'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64], 'float': [numpy.float64]}
    import chainer
    for name in shims:
        del sys.modules[name]
    if int(numpy.__version__[0]) >= 2:
        del numpy.sctypes
"""


@pytest.mark.parametrize('treatment', ['always', 'error'])
def test_the_import_prints_nothing_and_warns_of_nothing(run_python, treatment):
    done = run_python('import chainerlp, chainer', '-W', treatment)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


@pytest.fixture(scope='module')
def plain(facts_of):
    """Returns what a process looks like after the import and nothing else."""
    return facts_of("""
        import sys
        import numpy
        import chainerlp, chainer
        from chainerlp.compat import importing
        from chainer.functions.array import as_strided, pad_sequence, resize_images
        from chainer.functions.normalization import layer_normalization

        facts = {
            'names_in_numpy': [name for name in ('sctypes', 'float') if name in vars(numpy)],
            'shims_in_sys_modules': [
                name for name in ('pkg_resources', 'numpy', 'numpy.distutils.system_info')
                if sys.modules.get(name) in (importing.PKG_RESOURCES, importing.SYSTEM_INFO)],
            'finders': [type(finder).__name__ for finder in sys.meta_path].count('PatchingFinder'),
            'patched': [
                function.__qualname__ for function in (
                    as_strided.AsStridedGrad.forward, resize_images.compute_indices_and_weights,
                    chainer.distributions.Categorical.log_prob, chainer.Summary.add,
                    layer_normalization.LayerNormalization.__init__,
                    pad_sequence.PadSequence.forward, chainer.DictSummary.add)
                if hasattr(function, '__wrapped__')],
            'loader_of_as_strided': type(as_strided.__spec__.loader).__name__,
        }
    """)


def test_numpy_and_the_imported_modules_are_left_as_they_are(plain):
    assert plain['names_in_numpy'] == (['sctypes'] if not ON_NUMPY_2 else [])
    assert plain['shims_in_sys_modules'] == []
    assert plain['loader_of_as_strided'] == 'SourceFileLoader'


PATCHED = [
    'AsStridedGrad.forward',
    'compute_indices_and_weights',
    'Categorical.log_prob',
    'Summary.add',
    'LayerNormalization.__init__',
    'PadSequence.forward',
]


@pytest.mark.skipif(not ON_NUMPY_2, reason='for NumPy 2')
def test_on_numpy_2_everything_is_patched(plain):
    assert plain['patched'] == PATCHED


@pytest.mark.skipif(ON_NUMPY_2 or chainer.backends.cuda.available, reason='for NumPy 1, no CuPy')
def test_on_numpy_1_only_what_numpy_1_24_removed_is_patched(plain):
    assert plain['patched'] == ['compute_indices_and_weights']


def test_warnings_of_ones_own_are_still_given(run_python):
    done = run_python("""
        import warnings, chainerlp
        for category in (UserWarning, DeprecationWarning, RuntimeWarning, FutureWarning):
            warnings.warn(category.__name__, category)
    """)
    assert done.returncode == 0
    for category in ('UserWarning', 'DeprecationWarning', 'RuntimeWarning', 'FutureWarning'):
        assert f'{category}: {category}' in done.stderr


def test_where_nothing_is_missing_no_import_hook_is_installed(plain):
    expected = 0 if HAS_PKG_RESOURCES and not ON_NUMPY_2 else 1
    assert plain['finders'] == expected


def test_a_forbidden_pkg_resources_is_done_without_and_stays_forbidden(facts_of):
    facts = facts_of("""
        import sys
        sys.modules['pkg_resources'] = None
        import chainerlp, chainer
        import chainer.gradient_check  # which imports chainer.testing, which needs pkg_resources
        from chainerlp.compat.importing import PKG_RESOURCES
        facts = {
            'still_forbidden': sys.modules['pkg_resources'] is None,
            'used': chainer._environment_check.pkg_resources is PKG_RESOURCES,
            'used_by_testing': chainer.testing.helper.pkg_resources is PKG_RESOURCES,
        }
    """)
    assert facts == {'still_forbidden': True, 'used': True, 'used_by_testing': True}


def test_a_pkg_resources_that_is_there_is_used(facts_of, tmp_path):
    (tmp_path / 'pkg_resources.py').write_text(
        'import warnings\n'
        'warnings.warn("pkg_resources is deprecated as an API.", UserWarning)\n'
        'class DistributionNotFound(Exception): pass\n'
        'asked = []\n'
        'def require(name):\n'
        '    asked.append(name)\n'
        '    raise DistributionNotFound\n'
    )
    facts = facts_of(
        """
        import chainerlp, pkg_resources, chainer
        import chainer.testing
        facts = {
            'file': pkg_resources.__file__,
            'asked': len(pkg_resources.asked),
            'testing_uses_it': chainer.testing.helper.pkg_resources is pkg_resources,
        }
    """,
        '-W',
        'error',
        path=tmp_path,
    )
    assert facts['file'] == str(tmp_path / 'pkg_resources.py')
    assert facts['asked'] > 0
    assert facts['testing_uses_it']


def test_a_chainer_that_was_imported_before_gets_what_it_needs_at_run_time(facts_of):
    facts = facts_of(
        SHIMS
        + """
    import chainerlp
    import chainer.functions as F
    summary = chainer.Summary()
    for _ in range(4096):
        summary.add(numpy.float16(1))
    x = chainer.Variable(numpy.arange(4.))
    y = F.as_strided(x, (3, 2), (1, 1), 0)
    y.grad = numpy.ones((3, 2))
    y.backward()
    image = F.resize_images(numpy.ones((1, 1, 2, 2), 'f'), (4, 4)).array
    import chainer.testing
    facts = {
        'mean': float(summary.compute_mean()), 'grad': x.grad.tolist(), 'sum': image.sum().item()}
    """
    )
    assert facts == {'mean': 1.0, 'grad': [1.0, 2.0, 2.0, 1.0], 'sum': 16.0}


def test_chainer_can_be_imported_after_an_import_of_it_that_failed(facts_of):
    # The first fails for what the stack lacks, or else for the missing module.
    facts = facts_of("""
        import sys
        sys.modules['chainer.training'] = None
        try:
            import chainer
        except (ImportError, AttributeError):
            failed = True
        del sys.modules['chainer.training']
        import chainerlp, chainer
        facts = {
            'failed': failed,
            'one_chainer': chainer.backend.chainer is chainer and chainer.link.chainer is chainer,
        }
    """)
    assert facts == {'failed': True, 'one_chainer': True}


def test_a_second_import_changes_nothing_more(facts_of):
    facts = facts_of("""
        import importlib, sys
        import chainerlp, chainer
        from chainer.functions.array import resize_images

        def state():
            return (
                chainer.Summary.add, chainer.functions.array.pad_sequence.PadSequence.forward,
                resize_images.compute_indices_and_weights, len(sys.meta_path))

        first = state()
        importlib.reload(chainerlp.compat)
        reloaded = state()
        for name in [name for name in sys.modules if name.startswith('chainerlp')]:
            del sys.modules[name]
        import chainerlp
        facts = {'after_reload': reloaded == first, 'after_import': state() == first}
    """)
    assert facts == {'after_reload': True, 'after_import': True}


def test_reloading_compat_here_is_harmless():
    assert importlib.reload(chainerlp.compat) is chainerlp.compat


@pytest.mark.skipif(
    'numpy.distutils.system_info' in sys.modules, reason='numpy.distutils is there, and is used'
)
def test_what_chainer_asks_for_on_macos_is_answered(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    chainer._environment_check._check_osx_numpy_backend()


def test_the_installed_chainer_will_do():
    importing.require_version()


def test_a_missing_chainer_is_said_in_one_line_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'chainer', None)
    with pytest.raises(ImportError) as caught:
        importing.require_version()
    assert str(caught.value) == (
        f'chainerlp needs Chainer 7.8.1 and found none. To install it: {INSTALL}'
    )
    assert caught.value.name == 'chainer'


@pytest.mark.parametrize('version', ['7.8.0', '7.8.10', '8.0.0', '7.8.1rc1'])
def test_another_version_that_is_imported_is_refused(monkeypatch, version):
    monkeypatch.setattr(chainer, '__version__', version)
    with pytest.raises(ImportError, match=f'found {version}. To install it'):
        importing.require_version()


def test_a_post_release_will_do(monkeypatch):
    monkeypatch.setattr(chainer, '__version__', '7.8.1.post1')
    importing.require_version()


def make_chainer(folder, version_file):
    package = folder / 'chainer'
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("it was imported")\n')
    if version_file:
        (package / '_version.py').write_text(version_file)
    return package


@pytest.mark.parametrize(
    'version_file, found',
    [
        ("__version__ = '6.7.0'\n", '6.7.0'),
        ('version = 1\n', 'an unknown version'),
        ('', 'an unknown version'),
    ],
)
def test_another_version_is_refused_before_its_import_fails(
    run_python, tmp_path, version_file, found
):
    package = make_chainer(tmp_path, version_file)
    done = run_python('import chainerlp', path=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f'ImportError: chainerlp needs Chainer 7.8.1 and found {found} in {package}. '
        f'To install it: {INSTALL}'
    )


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
    PKG_RESOURCES.WorkingSet().require(*requirements)


@pytest.mark.parametrize(
    'requirements, error',
    [
        (['no-such-package'], PKG_RESOURCES.DistributionNotFound),
        (['numpy', 'no-such-package>=1'], PKG_RESOURCES.DistributionNotFound),
        (['numpy<1.10'], PKG_RESOURCES.VersionConflict),
    ],
)
def test_what_is_not_installed_is_an_unresolved_requirement(requirements, error):
    with pytest.raises(error):
        PKG_RESOURCES.WorkingSet().require(*requirements)
    assert issubclass(error, PKG_RESOURCES.ResolutionError)


def test_chainers_own_check_finds_nothing_to_warn_of():
    with pytest.raises(PKG_RESOURCES.DistributionNotFound):
        PKG_RESOURCES.require('cupy>=7.7.0,<8.0.0')


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
