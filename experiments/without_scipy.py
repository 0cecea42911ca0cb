"""Imports torchmetrics without SciPy, which it takes along for a metric of speech.

Where SciPy is installed, torchmetrics 1.9 imports ``scipy.signal`` to put a name back that another package of audio
metrics looks for: 0.75 s and 60 MiB of a process that scores none. Whoever imports SciPy afterwards gets all of it.
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
        sys.meta_path.remove(self)
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
        # What it imports beside, and would look for SciPy in earnest.
        importlib.import_module("torchvision")
        with _stand_in():
            super().exec_module(module)


@contextlib.contextmanager
def _stand_in() -> Iterator[None]:
    """An empty SciPy in the block, and none behind it."""
    if "scipy" in sys.modules:
        yield
        return
    scipy, signal = ModuleType("scipy"), ModuleType("scipy.signal")
    # How one knows that it is there: as a package, and with the name that shall be put back.
    scipy.__spec__ = ModuleSpec("scipy", None, is_package=True)
    scipy.__path__ = []
    scipy.signal, signal.hamming = signal, None  # type: ignore[attr-defined]
    sys.modules.update({"scipy": scipy, "scipy.signal": signal})
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
            del sys.modules[name]
