"""Processes that are measured from outside, and whose failures are errors, never figures."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_PATIENCE = 3600.0  # seconds, for the longest of them on a slow machine
_LAST_LINES = 10
_MIB = 2**20

# Linux counts in KiB, macOS in bytes.
_UNIT_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024

# What the kernel says of a child's memory begins with that of the process it was started from. So it is started from
# one that imports next to nothing, whatever the process that measures holds.
_LAUNCHER = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
"""


class ChildError(RuntimeError):
    """A process failed, or did not do what was to be measured."""


@dataclass(frozen=True)
class Finished:
    """A process that came to its end.

    Args:
        seconds: from its start to its exit.
        output: what it printed on stdout.
    """

    seconds: float
    output: str

    def line_behind(self, mark: str) -> str:
        """What follows a mark at the beginning of a line; of several the last.

        Raises:
            ChildError: no line begins with it.
        """
        found = [line.removeprefix(mark) for line in self.output.splitlines() if line.startswith(mark)]
        if not found:
            raise ChildError(f"no line of the output begins with {mark!r}: {_last_lines(self.output)}")
        return found[-1]


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module in this Python."""
    return [sys.executable, "-m", name, *arguments]


def script(name: str, *arguments: str) -> list[str]:
    """The command that runs a module's file, and nothing that belongs to the processes of our experiments.

    Those begin with settings of their own (see :mod:`experiments.process`), which a plain baseline does not have.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no file of a module {name}")
    return [sys.executable, spec.origin, *arguments]


def finish(command: Sequence[str], **variables: str) -> Finished:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        variables: of its environment, beside this process's own.

    Raises:
        ChildError: it ended with another exit code than 0; says the command, and what it said last.
    """
    # Files, because whatever it has started itself would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        with _started(command, output, errors, variables) as process:
            process.wait()
        seconds = time.perf_counter() - started
        _check(command, process.returncode, errors)
        output.seek(0)
        return Finished(seconds, output.read())


def seconds_until(command: Sequence[str], mark: str, **variables: str) -> float:
    """Run a command to its end, and return the seconds from its start until it printed a line.

    Args:
        command: the program and its arguments.
        mark: the line.
        variables: of its environment, beside this process's own.

    Raises:
        ChildError: it failed, or never printed the line.
    """
    seconds = None
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        with _started(command, subprocess.PIPE, errors, variables) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.rstrip("\n") == mark:
                    seconds = time.perf_counter() - started
                    break
            process.wait()
        _check(command, process.returncode, errors)
    if seconds is None:
        raise ChildError(f"{_shown(command)} never printed {mark!r}")
    return seconds


def peak_memory(command: Sequence[str], **variables: str) -> float:
    """Run a command to its end, and return its largest resident set in MiB, that of its largest process.

    Raises:
        ChildError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "maxrss"
        finish([sys.executable, "-I", "-S", "-c", _LAUNCHER, str(file), *command], **variables)
        return int(file.read_text(encoding="utf-8")) * _UNIT_OF_MAXRSS / _MIB


@contextlib.contextmanager
def _started(
    command: Sequence[str], output: IO[str] | int, errors: IO[str], variables: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone at the end of the block."""
    environment: dict[str, Any] = {**os.environ, **variables}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment, text=True
    ) as process:
        # Not wait's own timeout, with which it looks only every 50 ms.
        killer = threading.Timer(_PATIENCE, process.kill)
        killer.daemon = True
        killer.start()
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            killer.cancel()


def _check(command: Sequence[str], exit_code: int, errors: IO[str]) -> None:
    if exit_code == 0:
        return
    errors.seek(0)
    raise ChildError(f"{_shown(command)} ended with exit code {exit_code}: {_last_lines(errors.read())}")


def _shown(command: Sequence[str]) -> str:
    """The command, without the program that launches it."""
    if _LAUNCHER in command:
        command = command[list(command).index(_LAUNCHER) + 2 :]
    return " ".join(command)


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:]) or "it said nothing"
