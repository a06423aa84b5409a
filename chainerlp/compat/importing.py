"""Imports Chainer where modules and names that it looks up on its import are gone."""

import importlib.util
import os
import pathlib
import re
import runpy
import sys
import types
import warnings

from chainerlp.compat import cupy14, shims
from chainerlp.compat.patching import ImportPatch, ModuleOverlay, install_finder

import numpy

NEEDED = '7.8.1'
INSTALL = (
    'pip install --upgrade "setuptools<81" wheel'
    f' && pip install --no-build-isolation chainer=={NEEDED}'
)

# as_strided.py:10 takes the integer types by their sizes, line 252 the types of a gradient.
SCTYPES = {
    'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
    'float': [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
}


def import_chainer():
    """Imports Chainer, with an import hook for those of its modules that need one.

    Chainer is told not to use cuDNN, unless its user has said so (``CHAINER_CUDNN``): it can use
    cuDNN 8 through CuPy 13 and none through CuPy 14, and without it both compute in the same way.
    It also warns of a cuDNN that is missing, unless it was told (``backends/cuda.py:125, 150``).

    Raises:
        ImportError: Chainer is missing or of another version.

    """
    require_version()
    if 'chainer' not in sys.modules:
        # Submodules that a failed import has left behind refer to a `chainer` that is not there.
        for name in [name for name in sys.modules if name.startswith('chainer.')]:
            del sys.modules[name]
    install_finder(_import_patches())
    is_set = 'CHAINER_CUDNN' in os.environ
    os.environ.setdefault('CHAINER_CUDNN', '0')
    try:
        with warnings.catch_warnings():
            # Chainer looks for NCCL and cuDNN whenever it is imported (multiprocess_parallel_
            # updater.py:15, backends/cuda.py:128), and few need them. Who does is told later.
            warnings.filterwarnings('ignore', r'\s*(nccl|cudnn) library could not be', UserWarning)
            importlib.import_module('chainer')
    finally:
        if not is_set:
            os.environ.pop('CHAINER_CUDNN', None)


def require_version():
    """Checks the installed Chainer before it is imported.

    Another version could fail in its own import, with an error that says nothing of versions.

    Raises:
        ImportError: Chainer is missing or is not the version that is needed; one line that says
            what was found, what is needed, and how to install it.

    """
    found = _found_version()
    # A post-release differs from its release in packaging only (PEP 440).
    if not re.fullmatch(re.escape(NEEDED) + r'(\.post\d+)?', found):
        raise ImportError(
            f'chainerlp needs Chainer {NEEDED} and found {found}. To install it: {INSTALL}',
            name='chainer',
        )


def _found_version():
    """Returns the version of Chainer that is imported or would be, or words that say why not."""
    if sys.modules.get('chainer') is not None:
        return getattr(sys.modules['chainer'], '__version__', 'a half-imported one')
    spec = importlib.util.find_spec('chainer')
    if spec is None or spec.origin is None:  # without an origin: any folder of that name
        return 'none'
    path = pathlib.Path(spec.origin).with_name('_version.py')
    try:
        version = runpy.run_path(str(path))['__version__']
    except (OSError, KeyError):
        version = 'an unknown version'
    return version if version == NEEDED else f'{version} in {path.parent}'


def _import_patches():
    """Returns an :class:`ImportPatch` for each module that needs one on this stack, by its name."""
    patches = {}
    # _environment_check.py:6-7 imports both modules. Where pkg_resources is missing, NumPy's is not
    # tried: that takes a quarter of a second, is deprecated, and serves one check on macOS only.
    system_info, missing = 'numpy.distutils.system_info', ()
    if not _importable('pkg_resources'):
        missing = ('pkg_resources', system_info)
        # testing/helper.py:6 and testing/doctest_helper.py:3 import it. Chainer does not import
        # these by itself, but chainer.gradient_check does, and users' tests do, at any later time.
        for name in ('chainer.testing.helper', 'chainer.testing.doctest_helper'):
            patches[name] = ImportPatch({'pkg_resources': shims})
    elif 'chainer._environment_check' not in sys.modules and not _importable(system_info):
        missing = (system_info,)
    if missing:
        modules = dict.fromkeys(missing, shims)
        patches['chainer._environment_check'] = ImportPatch(modules, after=_add_distutils)
    if numpy_lacks('sctypes'):
        as_strided = 'chainer.functions.array.as_strided'
        patches[as_strided] = ImportPatch(numpy_names={'sctypes': SCTYPES})
    if cupy14.cupy_major() >= 14:
        patches[cupy14.CHAINERMN_COPIES] = ImportPatch(after=cupy14.patch_chainermn)
    return patches


def _importable(name):
    """Returns whether a module, which Chainer would import at once, can be imported."""
    with warnings.catch_warnings():
        # Both modules warn that they are deprecated. As an error it would make them look missing.
        warnings.simplefilter('ignore')
        try:
            importlib.import_module(name)
        except Exception:  # an old pkg_resources on a new Python: AttributeError
            return False
    return True


def _add_distutils(environment_check):
    # On macOS, _environment_check.py:29 looks it up as an attribute of numpy, after its import.
    distutils = types.SimpleNamespace(system_info=shims)
    environment_check.numpy = ModuleOverlay(numpy, distutils=distutils)


def numpy_lacks(name):
    """Returns whether NumPy has no such name; to ask may not warn that the name is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return not hasattr(numpy, name)
