"""The process of an experiment: soon begun, and soon ended."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn

_exit_codes: list[int] = []


def begin() -> None:
    """Before anything is imported: collect garbage seldom, and be the last to be asked at the process's end.

    Imports make a million objects that stay; looking through them for garbage as often as Python does takes a fifth of
    the time of the imports.
    """
    gc.set_threshold(100_000, 20, 100)
    if not atexit._ncallbacks():  # whoever is here already, such as a measurement of coverage, would be asked after us
        atexit.register(_leave)
    import logging  # which registers itself, too

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell where it cannot keep its list of fonts


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
