"""Imports Chainer where modules and names that it looks up on its import are gone.

``pkg_resources`` went with setuptools 82, ``numpy.distutils.system_info`` with NumPy for
Python 3.12, ``numpy.sctypes`` with NumPy 2.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import re
import runpy
import sys
import types
import warnings

from chainerlp.compat import cupy14
from chainerlp.compat.patching import ImportPatch, install_finder

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
    cuDNN 8 through CuPy 13 and none through CuPy 14, and warns of one that is missing, unless it
    was told (``backends/cuda.py:125, 150``).

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
    """Checks the installed Chainer before it is imported: another would fail, and not say why.

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
    system_info, shims = 'numpy.distutils.system_info', {}
    if not _importable('pkg_resources'):
        shims = {'pkg_resources': PKG_RESOURCES, system_info: SYSTEM_INFO}
        # testing/helper.py:6 and testing/doctest_helper.py:3 import it. Chainer does not import
        # these by itself, but chainer.gradient_check does, and users' tests do, at any later time.
        for name in ('chainer.testing.helper', 'chainer.testing.doctest_helper'):
            patches[name] = ImportPatch({'pkg_resources': PKG_RESOURCES})
    elif 'chainer._environment_check' not in sys.modules and not _importable(system_info):
        shims = {system_info: SYSTEM_INFO}
    if shims:
        patches['chainer._environment_check'] = ImportPatch(shims, after=_set_system_info)
    if not hasattr(numpy, 'sctypes'):
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


def _set_system_info(environment_check):
    # On macOS, line 29 looks it up as an attribute of numpy, after the import.
    distutils = types.SimpleNamespace(system_info=SYSTEM_INFO)
    environment_check.numpy = types.SimpleNamespace(distutils=distutils)


class ResolutionError(Exception):
    """A requirement is not fulfilled (``chainer/testing/helper.py:43, 72``)."""


class DistributionNotFound(ResolutionError):  # noqa: N818 -- the name is not ours
    """A required distribution is not installed (``_environment_check.py:59``)."""


class VersionConflict(ResolutionError):  # noqa: N818
    """An installed distribution is not of the required version (``_environment_check.py:61``)."""


def _require(*requirements):
    # Chainer asks for CuPy 7 and iDeep 2, in order to warn of another version (_environment_check.
    # py:57). Neither exists for a Python that this stack runs on.
    raise DistributionNotFound(', '.join(requirements))


class _WorkingSet:
    """The installed distributions (``chainer/testing/helper.py:39, 68``)."""

    def require(self, *requirements):
        """Checks requirements, such as ``'numpy>=1.10'``, but not what these require in turn."""
        from packaging.requirements import Requirement  # it comes with pytest

        for requirement in map(Requirement, requirements):
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                raise DistributionNotFound(str(requirement)) from None
            if not requirement.specifier.contains(version, prereleases=True):
                raise VersionConflict(f'{requirement.name} {version} is not {requirement}')


# As much of the two modules as Chainer uses.
PKG_RESOURCES = types.SimpleNamespace(
    require=_require,
    WorkingSet=_WorkingSet,
    ResolutionError=ResolutionError,
    DistributionNotFound=DistributionNotFound,
    VersionConflict=VersionConflict,
)
# Nothing is known of a library: on macOS, Chainer asks for 'blas_opt' in order to warn of a NumPy
# that was built with the Accelerate of 2015 (_environment_check.py:29).
SYSTEM_INFO = types.SimpleNamespace(get_info=lambda name: {})
