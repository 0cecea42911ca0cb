"""Imports torchmetrics without SciPy, which it takes along for a metric of speech.

Where SciPy is installed, torchmetrics 1.9 imports ``scipy.signal`` to put a name back that another package of audio
metrics looks for: 0.75 s and 60 MiB of a process that scores none. Whoever else imports SciPy gets all of it, also
meanwhile, as the packages do that torchmetrics imports where they are installed.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Any

_PACKAGE = "torchmetrics"


def install() -> None:
    """From now on, for this process; nothing where SciPy or torchmetrics are imported already."""
    if not {"scipy", _PACKAGE} & sys.modules.keys():
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchmetrics as ever, and lets it be executed with a stand-in for SciPy."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PACKAGE:
            return None
        found = PathFinder.find_spec(fullname, path)
        if found is None or type(found.loader) is not SourceFileLoader or found.origin is None:
            return found
        return spec_from_file_location(
            fullname,
            found.origin,
            loader=_Loader(fullname, found.origin),
            submodule_search_locations=found.submodule_search_locations,
        )


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        # Not as soon as it is found: many only look whether there is a package.
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        # What it imports beside, and would look for SciPy in earnest.
        importlib.import_module("torchvision")
        with _stand_in():
            super().exec_module(module)


class _StandIn(ModuleType):
    """A module in the place of another, which is imported as soon as anything is asked for that this one lacks."""

    def __init__(self, name: str, **attributes: object) -> None:
        super().__init__(name)
        # How one knows that a package is there.
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__path__: list[str] = []
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # many ask all modules there are for their __file__
            raise AttributeError(f"the stand-in for {self.__name__} has no {name}")
        _step_aside()
        return getattr(importlib.import_module(self.__name__), name)


class _Submodules(MetaPathFinder):
    """Finds the modules of SciPy that have no stand-in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = fullname.rpartition(".")[0]
        if not isinstance(sys.modules.get(package), _StandIn):
            return None
        _step_aside()
        return PathFinder.find_spec(fullname, importlib.import_module(package).__path__)


@contextlib.contextmanager
def _stand_in() -> Iterator[None]:
    """An empty SciPy in the block, for those who do not look into it, and none behind it."""
    if "scipy" in sys.modules:
        yield
        return
    signal = _StandIn("scipy.signal", hamming=None)  # the name that shall be put back
    sys.modules.update({"scipy": _StandIn("scipy", signal=signal), "scipy.signal": signal})
    submodules = _Submodules()
    sys.meta_path.insert(0, submodules)
    try:
        yield
    finally:
        sys.meta_path.remove(submodules)
        _step_aside()


def _step_aside() -> None:
    for name in ("scipy", "scipy.signal"):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
