"""Where a run's files are: ``runs/<experiment>/<time>/``, one directory a run, never shared and never overwritten."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

ROOT = Path("runs")
CONFIG = "config.yaml"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"

# How the processes that Lightning starts for further GPUs learn where the first one writes.
_HANDED_ON = "ZOO_RUN_DIR"


def create(experiment: str, wanted: str | None = None) -> Path:
    """A new directory: ``wanted``, or one named after the time; with ``-2``, ``-3``, … behind it if it is taken.

    Raises:
        OSError: it cannot be made or written to.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        # Only the first process makes one and writes to it.
        return Path(os.environ.get(_HANDED_ON) or wanted or ROOT / experiment)
    base = Path(wanted) if wanted else ROOT / experiment / time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        directory = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            # One that somebody made for this run and that is still empty will do.
            if not (wanted and number == 1 and directory.is_dir() and not any(directory.iterdir())):
                continue
        return _use(directory)
    raise AssertionError("itertools.count ended")


def reuse(directory: Path) -> Path:
    """The directory of a run that goes on, without what it had begun to write when it was killed."""
    _use(directory)
    if getattr(rank_zero_only, "rank", 0) == 0:
        for folder in (directory, directory / CHECKPOINTS):
            for unfinished in folder.glob(".*.new"):
                unfinished.unlink(missing_ok=True)
    return directory


def _use(directory: Path) -> Path:
    if not os.access(directory, os.W_OK):
        raise PermissionError(f"the run directory {directory} cannot be written to")
    os.environ[_HANDED_ON] = str(directory)
    return directory


def find_checkpoint(experiment: str, resume: str, wanted: str | None = None) -> Path:
    """The checkpoint that ``--resume`` means; of a run it is the last one, even if only others are there.

    Args:
        experiment: its name.
        resume: ``"last"``, a checkpoint, or the directory of a run.
        wanted: ``--run_dir``; with ``"last"`` the run to go on with, else the newest run of the experiment.

    Raises:
        FileNotFoundError: there is none; says where it was looked for.
    """
    if resume != "last":
        path = Path(resume)
        if path.is_dir():
            return _last_of(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        return path
    if getattr(rank_zero_only, "rank", 0) != 0:
        wanted = os.environ.get(_HANDED_ON, wanted)  # what is the newest may have changed since the first one looked
    if wanted:
        return _last_of(Path(wanted))
    written = list((ROOT / experiment).glob(f"*/{CHECKPOINTS}/*.ckpt"))
    if not written:
        raise FileNotFoundError(f"there is no run to resume: no {ROOT / experiment}/*/{CHECKPOINTS}/{LAST}")
    return max(written, key=lambda path: path.stat().st_mtime).with_name(LAST)


def _last_of(directory: Path) -> Path:
    last = directory / CHECKPOINTS / LAST
    if not any(last.parent.glob("*.ckpt")):
        raise FileNotFoundError(f"there is no checkpoint {last} to resume")
    return last


def run_of(checkpoint: Path) -> Path | None:
    """The directory of the run that a checkpoint belongs to, if it is in one."""
    directory = checkpoint.parent.parent
    return directory if checkpoint.parent.name == CHECKPOINTS and (directory / CONFIG).is_file() else None
