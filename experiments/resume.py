"""What ``--resume`` means."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import run_directory
from experiments.cli_errors import UsageError
from experiments.config_files import refuse_foreign_code
from experiments.options import option_value
from zoo.checkpointing import CheckpointError, read_checkpoint

_PATHS = {"dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"}


@dataclass(frozen=True)
class Resumed:
    """A run that goes on.

    Args:
        checkpoint: where from.
        directory: the run's own directory, if it goes on in there.
        config: the configuration that the run had.
        record: the trackers' places, see :class:`zoo.callbacks.RunRecord`.
    """

    checkpoint: Path
    directory: Path | None
    config: Path | None
    record: Mapping[str, Any]


def find_resumed(experiment: str, args: Sequence[str]) -> tuple[Resumed | None, list[str]]:
    """The run to go on with, and the command line with that run's configuration before everything else.

    With ``--run_dir`` naming another directory, a checkpoint of a run begins a new run there.

    Raises:
        UsageError: there is no such checkpoint, or it cannot be read.
    """
    resume = option_value(args, "--resume")
    if resume is None:
        return None, list(args)
    wanted = option_value(args, "--run_dir")
    try:
        checkpoint = run_directory.find_checkpoint(experiment, resume, wanted)
        checkpoint, contents = (_read if Path(resume).is_file() else _newest_intact)(checkpoint)  # a file is that file
        record = contents.get("run_record", {})
        record = record if isinstance(record, dict) else {}
    except (FileNotFoundError, CheckpointError) as error:
        raise UsageError(f"--resume: {error}") from error
    directory = run_directory.run_of(checkpoint)
    if directory is None:
        return Resumed(checkpoint, None, None, record), list(args)
    elsewhere = wanted is not None and Path(wanted).resolve() != directory.resolve()
    config = directory / run_directory.CONFIG
    try:
        refuse_foreign_code(config, args)
    except UsageError as error:
        raise UsageError(f"--resume: {error}") from error
    return Resumed(checkpoint, None if elsewhere else directory, config, record), ["--config", str(config), *args]


def _read(checkpoint: Path) -> tuple[Path, dict[str, Any]]:
    return checkpoint, read_checkpoint(checkpoint)


def _newest_intact(last: Path) -> tuple[Path, dict[str, Any]]:
    """The last checkpoint of a run and its contents; if it is damaged, the newest one beside it that is not.

    That is the one before it, if it is there: others, such as the best, need not hold all that a run goes on with.

    Raises:
        CheckpointError: none is intact.
    """
    try:
        return _read(last)
    except CheckpointError as error:
        others = set(last.parent.glob("*.ckpt")) - {last}
        for other in sorted(
            others, key=lambda path: (path.name == run_directory.PREVIOUS, path.stat().st_mtime), reverse=True
        ):
            with contextlib.suppress(CheckpointError):
                found = _read(other)
                print(f"note      {error}; going on from {other.name}", flush=True)
                return found
        raise


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two configurations differ in, as ``"name now instead of before"``."""
    found = []
    for name in now:
        old, new = before.get(name), now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} {new} instead of {old}")
    return found


def relocate(checkpoint: dict[str, Any], directory: Path | None) -> None:
    """Let the checkpoint callbacks' states in ``checkpoint`` name files in ``directory``.

    They hold whole paths, and forget the best score when the directory is another. A run directory that was moved or
    copied would then lose its best checkpoint to the first validation after the resume. With ``None``, for a run that
    begins elsewhere, only see to it that none takes another run's files for its own.
    """
    states = checkpoint.get("callbacks", {})
    for state in states.values() if isinstance(states, dict) else ():
        # Not only where it says in which directory: left out, that would be taken to be the run's own, and what the
        # state names elsewhere would be removed as the run's former best.
        if not isinstance(state, dict) or not _PATHS & state.keys():
            continue
        if directory is None:
            state.setdefault("dirpath", None)
            continue

        def moved(path: str, directory: Path = directory) -> str:
            name = Path(path).name
            return str(directory / name) if name not in ("", "..") else ""

        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(str(state.get(key) or ""))
        best = state.get("best_k_models")
        state["best_k_models"] = {moved(str(path)): score for path, score in best.items()} if best else {}
        state["dirpath"] = str(directory)
