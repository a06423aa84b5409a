"""Patches modules of others: their functions, and what they find while they are imported."""

import contextlib
import dataclasses
import functools
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping
from typing import Callable, Optional

import numpy


def patch(owner, name, build):
    """Replaces a function by one that is built on it, unless that has been done.

    Args:
        owner: The class or module that it belongs to.
        name (str): Its name there.
        build: A function that takes what is there and returns its replacement.
    """
    original = getattr(owner, name)
    # The mark is on the function, and not here: it outlasts a second import of this module.
    if getattr(original, 'is_chainerlp_patch', False):
        return
    patched = functools.wraps(original)(build(original))
    patched.is_chainerlp_patch = True
    setattr(owner, name, patched)


class ModuleOverlay:
    """A module's namespace with further names, which go before the module's own.

    Args:
        module: The module, which stays as it is.
        names: The further names and what they stand for.
    """

    def __init__(self, module, /, **names):
        vars(self).update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def with_globals(**replacements):
    """Returns what copies a function with other values for some global names, for :func:`patch`.

    Only that function sees them. Others in its module ask whether an array's module *is* NumPy,
    which holds for no overlay.

    Args:
        replacements: The global names and their values.
    """

    def build(function):
        seen = {**function.__globals__, **replacements}
        return types.FunctionType(
            function.__code__, seen, function.__name__, function.__defaults__, function.__closure__
        )

    return build


@dataclasses.dataclass(frozen=True)
class ImportPatch:
    """What is changed for one module while it is imported.

    A shim that stayed in ``sys.modules``, or in NumPy, would tell other packages that something is
    there which is not. So all but ``after`` lasts as long as the module's code is executed.

    Attributes:
        modules (dict): Modules that can be imported, by their full names.
        numpy_names (dict): Attributes of NumPy.
        after: A function that is called with the module at the end; ``None`` for nothing.
    """

    modules: Mapping = dataclasses.field(default_factory=dict)
    numpy_names: Mapping = dataclasses.field(default_factory=dict)
    after: Optional[Callable] = None


@contextlib.contextmanager
def _added(names, further):
    # What somebody else has put there in the meantime is used, and stays. A module that is None is
    # one that may not be imported.
    further = {name: value for name, value in further.items() if names.get(name) is None}
    before = {name: names[name] for name in further if name in names}
    names.update(further)
    try:
        yield
    finally:
        for name in further:
            del names[name]
        names.update(before)


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader, patch):
        self._loader = loader
        self._patch = patch

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # Tracebacks, inspect and the like ask a module's loader for its source.
        module.__loader__ = module.__spec__.loader = self._loader
        patch = self._patch
        with _added(sys.modules, patch.modules), _added(vars(numpy), patch.numpy_names):
            self._loader.exec_module(module)
        if patch.after is not None:
            patch.after(module)


class PatchingFinder(importlib.abc.MetaPathFinder):
    """An import hook that finds the modules which are patched, and no others.

    Args:
        patches (dict): An :class:`ImportPatch` for each module, by the module's full name.
    """

    def __init__(self, patches):
        self._patches = patches

    def find_spec(self, fullname, path=None, target=None):
        """Returns the ordinary spec of a module, with a loader that patches; else ``None``."""
        if fullname not in self._patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _PatchingLoader(spec.loader, self._patches[fullname])
        return spec


def install_finder(patches):
    """Makes a :class:`PatchingFinder` the first to look for modules, in place of an earlier one.

    Args:
        patches (dict): See :class:`PatchingFinder`. Without any, none is installed.
    """
    # By name, since reloading this module makes another class of it.
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if (type(finder).__module__, type(finder).__name__) != (__name__, PatchingFinder.__name__)
    ]
    if patches:
        sys.meta_path.insert(0, PatchingFinder(patches))
