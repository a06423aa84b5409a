"""As much of two modules that are gone as Chainer uses; one shim stands for both.

``pkg_resources`` went with setuptools 82, ``numpy.distutils.system_info`` with NumPy for
Python 3.12. Line numbers are those of ``chainer/_environment_check.py``.
"""

import importlib.metadata


def get_info(name):
    """Returns that nothing is known of a library, as ``numpy.distutils.system_info`` does it.

    On macOS, Chainer asks for ``'blas_opt'`` in order to warn of a NumPy that was built with the
    Accelerate of 2015 (line 29).
    """
    return {}


class ResolutionError(Exception):
    """A requirement is not fulfilled (``chainer/testing/helper.py:43, 72``)."""


class DistributionNotFound(ResolutionError):  # noqa: N818 -- the name is not ours
    """A required distribution is not installed (line 59)."""


class VersionConflict(ResolutionError):  # noqa: N818
    """An installed distribution is not of the required version (line 61)."""


def require(*requirements):
    """Finds nothing.

    Chainer asks for CuPy 7 and iDeep 2, in order to warn of another version (line 57). Neither
    exists for a Python that this stack runs on.
    """
    raise DistributionNotFound(', '.join(requirements))


class WorkingSet:
    """The installed distributions (``chainer/testing/helper.py:39, 68``)."""

    def require(self, *requirements):
        """Checks requirements, but not what these require in turn.

        It needs the package ``packaging``, which comes with pytest.

        Args:
            requirements (str): Requirements such as ``'numpy>=1.10'``.

        Raises:
            ResolutionError: One of them is not fulfilled.

        """
        from packaging.requirements import Requirement

        for requirement in map(Requirement, requirements):
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                raise DistributionNotFound(str(requirement)) from None
            if not requirement.specifier.contains(version, prereleases=True):
                raise VersionConflict(f'{requirement.name} {version} is not {requirement}')
