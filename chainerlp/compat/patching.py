"""Patches modules of others: their functions, and what they find while they are imported."""

import contextlib
import dataclasses
import functools
import importlib.abc
import importlib.machinery
import sys
import types
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


class Overlay:
    """An object, such as a module, with further attributes that go before its own.

    Args:
        original: The object, which stays as it is.
        attributes: The further attributes.
    """

    def __init__(self, original, /, **attributes):
        vars(self).update(attributes, _original=original)

    def __getattr__(self, name):
        return getattr(self._original, name)


def with_globals(**replacements):
    """Returns what copies a function with other values for some global names, for :func:`patch`.

    Only that function sees them. Others in its module ask whether an array's module *is* NumPy,
    which holds for no overlay.
    """

    def build(function):
        seen = {**function.__globals__, **replacements}
        return types.FunctionType(
            function.__code__, seen, function.__name__, function.__defaults__, function.__closure__
        )

    return build


@dataclasses.dataclass(frozen=True)
class ImportPatch:
    """What is changed for one module while its code is executed.

    A shim that stayed in ``sys.modules``, or in NumPy, would tell other packages that something is
    there which is not.

    Attributes:
        modules (dict): Modules that can be imported, by their full names.
        numpy_names (dict): Attributes of NumPy.
        after: A function that is called with the module at the end; ``None`` for nothing.
    """

    modules: dict = dataclasses.field(default_factory=dict)
    numpy_names: dict = dataclasses.field(default_factory=dict)
    after: Optional[Callable] = None


@contextlib.contextmanager
def _added(names, further):
    # What is there already is used, and stays. A module that is None may not be imported.
    further = {name: value for name, value in further.items() if names.get(name) is None}
    before = {name: names[name] for name in further if name in names}
    names.update(further)
    try:
        yield
    finally:
        for name in further:
            del names[name]
        names.update(before)


def _execute(execute, import_patch, module):
    with _added(sys.modules, import_patch.modules), _added(vars(numpy), import_patch.numpy_names):
        execute(module)
    if import_patch.after is not None:
        import_patch.after(module)


class PatchingFinder(importlib.abc.MetaPathFinder):
    """An import hook that finds the modules which are patched, and no others.

    Args:
        patches (dict): An :class:`ImportPatch` for each module, by the module's full name.
    """

    def __init__(self, patches):
        self._patches = patches

    def find_spec(self, fullname, path=None, target=None):
        """Returns the ordinary spec of a module, whose loader patches; else ``None``."""
        if fullname not in self._patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            # The loader itself stays: inspect and tracebacks ask it for the module's source.
            spec.loader.exec_module = functools.partial(
                _execute, spec.loader.exec_module, self._patches[fullname]
            )
        return spec


def install_finder(patches):
    """Makes a :class:`PatchingFinder` the first to look for modules, in place of an earlier one.

    Args:
        patches (dict): See :class:`PatchingFinder`. Without any, none is installed.
    """
    # By name, since reloading this module makes another class of it.
    own = (__name__, PatchingFinder.__name__)
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if (type(finder).__module__, type(finder).__name__) != own
    ]
    if patches:
        sys.meta_path.insert(0, PatchingFinder(patches))
