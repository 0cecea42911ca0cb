"""What a run prints: what its user wants to know, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from datamodules import FallbackWarning
from zoo.callbacks import FigureWarning
from zoo.tracking import TrackerWarning

# Warnings that the user of an experiment can do nothing about.
_NOISE = (
    r".*Checkpoint directory .* exists and is not empty",  # a resumed run's own
    r".*The dirpath has changed from",  # a new run from another's checkpoint keeps its own best
    r".*The number of training batches \(.*\) is smaller than the logging interval",  # the runner lowers it
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.13 and newer
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's announcements, and with every warning as one line."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)

    def show_plainly(message: Any, *place: Any, **kwargs: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = show_plainly
        for ours in (FallbackWarning, FigureWarning, TrackerWarning):
            warnings.filterwarnings("always", category=ours)
        for ignored in _NOISE:
            warnings.filterwarnings("ignore", message=ignored)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def printable(text: object) -> str:
    """A text, such as the name of a file, without what would move the cursor or cannot be written: that is escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(text))
