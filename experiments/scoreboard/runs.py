"""The runs of a scoreboard on the disk: each in a process and a directory of its own, and none taken for another.

Beside the directory of a run lie a record of what it was begun with (``seed-0.json``) and what it printed
(``seed-0.log``). A run counts if it came to its end in one go, with the code, the options, the versions and on the
machine of now.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.atomic import read_bounded
from experiments import over_seeds
from experiments.cli_errors import UsageError
from experiments.run_directory import SUMMARY
from experiments.scoreboard import circumstances
from experiments.scoreboard.row import Finished
from experiments.summary import versions
from experiments.terminal import one_line
from zoo.checkpointing import write_whole

OPTIONS = ("--tracking", "csv")
"""Of every run: a board is no reason to fill somebody's Weights & Biases."""

_LOCK = "scoreboard.lock"
_LARGEST = 2**20  # bytes of a record
_GRACE = 20.0  # seconds for a run to stop
_TAIL = 8192  # bytes of a log in which its error stands
_CIRCUMSTANCES = ("machine", "commit", "clean", "versions", "code", "date")
_BEGUN, _FINISHED, _FAILED = "begun", "finished", "failed"

Command = Callable[[str, int, Path, Sequence[str]], list[str]]


class RunError(RuntimeError):
    """A run that came to no result, and why."""


@dataclass(frozen=True)
class Unfinished:
    """A run that has to be made.

    Args:
        again: why one that was made before does not count; ``None`` if there was none.
    """

    again: str | None = None


class Runs:
    """The runs below a folder, which is one scoreboard's alone inside :meth:`locked`.

    Args:
        folder: where they are.
        command: the command of a run, see :func:`experiments.over_seeds.command`.
        options: of every run.
    """

    def __init__(self, folder: Path, command: Command = over_seeds.command, options: Sequence[str] = OPTIONS) -> None:
        self.folder = folder
        self.command = command
        self.options = tuple(options)
        self._lock: int | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out.

        A run holds the lock, too: it may outlive a scoreboard that was killed, and still write.

        Raises:
            UsageError: the folder is somebody else's, cannot be written to, or is in use.
        """
        import fcntl

        path = self.folder / _LOCK
        try:
            if not path.is_file() and self.folder.is_dir() and any(self.folder.iterdir()):
                raise UsageError(f"--runs: {self.folder} is not empty, and no folder of a scoreboard")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"--runs: {self.folder} cannot be used: {error.strerror or error}") from error
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"--runs: {self.folder} is in use by another scoreboard, or by a run that one left behind"
                ) from error
            yield
        finally:
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------------ what is there

    def find(self, experiment: str, seed: int, *, stand_in_is_needless: Callable[[str], bool]) -> Finished | Unfinished:
        """The run of a seed, or why there is none that counts.

        Args:
            experiment: its name.
            seed: of the run.
            stand_in_is_needless: whether data that a run was on could now be those that its claims are about.
        """
        record = self._read_record(experiment, seed)
        directory = self._directory(experiment, seed)
        if record is None:
            return Unfinished("it was interrupted" if directory.exists() else None)
        if record["state"] == _FAILED:
            return Unfinished("it failed")
        try:
            summary = over_seeds.read_summary(directory / SUMMARY)
        except FileNotFoundError:
            return Unfinished("it was interrupted")
        except over_seeds.RunsError:
            return Unfinished("its summary is damaged")
        if (summary.get("experiment"), summary.get("seed")) != (experiment, seed):
            return Unfinished("its directory holds another run")
        changed = self._changed(record, self._conditions(experiment, seed))
        if changed is None and stand_in_is_needless(summary["dataset"]):
            changed = f"it was on {summary['dataset']}"
        return Unfinished(changed) if changed else Finished(summary, {name: record[name] for name in _CIRCUMSTANCES})

    def _changed(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
        if then["code"] != now["code"]:
            return "its code was changed since"
        if then["command"] != now["command"]:
            return "it had other options"
        if then["device"] != now["device"]:
            return f"it was on {then['device']}"
        for name in sorted(then["versions"].keys() | now["versions"].keys()):
            before, after = then["versions"].get(name, "none"), now["versions"].get(name, "none")
            if before != after:
                return f"{name} was {before}, now {after}"
        return None

    def _conditions(self, experiment: str, seed: int) -> dict[str, Any]:
        """What must be the same for a run to count."""
        return {
            # The interpreter's place and the folder's say nothing about the run.
            "command": self.command(experiment, seed, Path(), self.options)[1:],
            "code": circumstances.code_digest(experiment),
            "device": circumstances.device(),
            "versions": versions(),
        }

    def _circumstances(self, experiment: str, seed: int) -> dict[str, Any]:
        revision = circumstances.revision()
        return {
            **self._conditions(experiment, seed),
            "machine": circumstances.machine(),
            "commit": revision.commit,
            "clean": revision.clean,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }

    def _read_record(self, experiment: str, seed: int) -> dict[str, Any] | None:
        """The record; ``None`` also if it is damaged, as a run of which nothing is known does not count."""
        try:
            record = json.loads(read_bounded(self._beside(experiment, seed, ".json"), _LARGEST))
        except (OSError, ValueError, RecursionError):
            return None
        wanted = {"state": str, "machine": dict, "device": str, "versions": dict, "code": str, "command": list}
        wanted |= {"clean": bool, "date": str, "commit": str | None}  # type: ignore[dict-item]
        if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in wanted.items()):
            return None
        return record

    def _directory(self, experiment: str, seed: int) -> Path:
        return self.folder / experiment / f"seed-{seed}"

    def _beside(self, experiment: str, seed: int, ending: str) -> Path:
        return self.folder / experiment / f"seed-{seed}{ending}"

    # ------------------------------------------------------------------ a run

    def make(self, experiment: str, seed: int) -> dict[str, Any]:
        """Run a seed in a process of its own, and return the summary.

        Whatever an earlier run of the seed left is removed.

        Raises:
            RunError: it failed.
            CheckpointError: the record of it could not be written.
            OSError: the folder cannot be written to.
        """
        directory = self._directory(experiment, seed)
        record = self._circumstances(experiment, seed)
        self._beside(experiment, seed, ".json").unlink(missing_ok=True)
        if directory.exists():
            shutil.rmtree(directory)
        self._write_record(experiment, seed, record, _BEGUN)
        log = self._beside(experiment, seed, ".log")
        code = self._process(self.command(experiment, seed, directory, self.options), log)
        try:
            if code:
                raise RunError(_reason(code, log))
            try:
                summary = over_seeds.read_summary(directory / SUMMARY)
            except FileNotFoundError as error:
                raise RunError(f"it left no {SUMMARY}") from error
            except over_seeds.RunsError as error:
                raise RunError(str(error)) from error
        except RunError:
            self._write_record(experiment, seed, record, _FAILED)
            raise
        self._write_record(experiment, seed, record, _FINISHED)
        return summary

    def _write_record(self, experiment: str, seed: int, record: Mapping[str, Any], state: str) -> None:
        text = json.dumps({**record, "state": state}, indent=1) + "\n"
        write_whole(text.encode(), self._beside(experiment, seed, ".json"))

    def _process(self, command: Sequence[str], log: Path) -> int:
        """Run a command to its end; it ends with us, but not by a Ctrl-C that is meant for us."""
        held = () if self._lock is None else (self._lock,)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=held,
            )
            try:
                return process.wait()
            finally:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is still under way, with all that it has started."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _reason(code: int, log: Path) -> str:
    """Why a run failed, in its own words."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error")]
    said = one_line((errors or lines or ["it said nothing"])[-1].removeprefix("error: "))
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
        return f"ended by signal {-code}"
    return f"{said[:300]} (exit code {code})"
