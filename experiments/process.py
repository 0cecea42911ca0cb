"""The process of an experiment: soon begun, and soon ended."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from typing import NoReturn

from experiments import without_scipy

_exit_codes: list[int] = []

# Of malloc.h; in the environment they are MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_, or GLIBC_TUNABLES.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_ALLOCATIONS = 32 * 2**20  # bytes; of more than that every glibc asks the system
_KEPT_MEMORY = 2**30


def begin() -> None:
    """Before anything is imported: collect garbage seldom, and be the last to be asked at the process's end.

    Imports make a million objects that stay; looking through them for garbage as often as Python does takes a fifth of
    the time of the imports.
    """
    gc.set_threshold(100_000, 20, 100)
    keep_freed_memory()
    without_scipy.install()
    if not atexit._ncallbacks():  # whoever is here already, such as a measurement of coverage, would be asked after us
        atexit.register(_leave)
    import logging  # which registers itself, too

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell where it cannot keep its list of fonts


def keep_freed_memory() -> None:
    """Let the C library keep what was freed for the next step, which wants as much again.

    By default glibc gives memory that is free at the end of its heap back to the system, and each step of a network
    whose activations take megabytes may ask for it anew, page by page: thousands of page faults, up to half its time.
    Does nothing elsewhere, or where the environment says otherwise.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    for name in ("mmap_threshold", "trim_threshold"):
        if f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in tunables:
            return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_ALLOCATIONS)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_MEMORY)


def imported() -> None:
    """Everything is imported: what there is will stay, and need not be looked through again."""
    gc.freeze()


def end(code: int) -> NoReturn:
    """End a process that has done what it was started for."""
    _exit_codes.append(code)
    raise SystemExit(code)


def _leave() -> None:
    """End it at once, after everyone else has had their turn: the system frees in no time what takes Python a second.

    Only where :func:`end` was called: after an error that nobody expected Python ends as it always does.
    """
    if not _exit_codes:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by whoever has started the process
                stream.flush()
    except (OSError, ValueError):
        return  # nobody reads any more: Python knows how to end then
    os._exit(_exit_codes[-1])
