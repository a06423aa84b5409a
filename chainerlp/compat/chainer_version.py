"""The one version of Chainer that everything here is written for."""

import importlib.util
import pathlib
import re
import runpy
import sys

NEEDED = '7.8.1'
INSTALL = (
    'pip install --upgrade "setuptools<81" wheel'
    f' && pip install --no-build-isolation chainer=={NEEDED}'
)


def require():
    """Checks the installed Chainer before it is imported.

    Another version could fail in its own import, with an error that says nothing of versions.

    Raises:
        ImportError: Chainer is missing or is not the version that is needed; one line that says
            what was found, what is needed, and how to install it.

    """
    found = _found()
    # A post-release differs from its release in packaging only (PEP 440).
    if not re.fullmatch(re.escape(NEEDED) + r'(\.post\d+)?', found):
        raise ImportError(
            f'chainerlp needs Chainer {NEEDED} and found {found}. To install it: {INSTALL}',
            name='chainer',
        )


def _found():
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
