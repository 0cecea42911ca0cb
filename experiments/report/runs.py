"""Runs as they lie on the disk: whatever of one is missing or damaged is said in a line, and the rest is read."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from experiments import run_directory
from experiments.__main__ import list_experiments
from experiments.cli_errors import UsageError
from experiments.config_files import read_config_file
from experiments.report.figures import FigureFile, read_figures
from experiments.report.history import History, HistoryError, read_history
from experiments.report.result import Result, ResultError, read_result, shown
from experiments.report.text import limited

METRICS = "metrics.csv"
_FILES = (run_directory.CONFIG, METRICS, run_directory.SUMMARY)
_DEEPEST = 2  # folders in a run: a file in figures/ or checkpoints/ is two below it

_Contents = TypeVar("_Contents")


@dataclass(frozen=True)
class Run:
    """What there is of a run.

    Args:
        directory: where it is.
        experiment: its name, ``None`` if nothing tells.
        result: what ``summary.json`` says; ``None`` where there is none, or none that can be read.
        config: the options, by name, as text.
        history: what was logged.
        figures: in the order in which they are shown.
        notes: what one should know, such as that the run did not end.
        problems: what could not be read, a line each.
    """

    directory: Path
    experiment: str | None = None
    result: Result | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    history: History = field(default_factory=History)
    figures: Sequence[FigureFile] = ()
    notes: Sequence[str] = ()
    problems: Sequence[str] = ()

    @property
    def command(self) -> str | None:
        """What makes the same run again; ``None`` where it is no experiment of ours, or has no configuration."""
        if self.experiment not in _experiments() or not self.config:  # nothing else that a file says becomes a command
            return None
        config = shlex.quote(str(self.directory / run_directory.CONFIG))
        return f"python -m experiments.{self.experiment} --config {config}"

    @property
    def metrics(self) -> Mapping[str, float]:
        """The figures of the result."""
        return {} if self.result is None else self.result.metrics

    @property
    def facts(self) -> Mapping[str, Mapping[str, str]]:
        """What the result was come to with."""
        return {} if self.result is None else self.result.facts


def find_runs(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The directories of the runs that are meant, each once, and a line for each that was meant twice.

    Args:
        given: run directories, files in one, or ``"last"`` for the newest run of all.

    Raises:
        UsageError: there is no such run.
    """
    found: dict[Path, Path] = {}
    notes = []
    for name in given:
        directory = _newest() if name == "last" else _run_at(name)
        if found.setdefault(directory.resolve(), directory) is not directory:
            notes.append(f"{name} is a run that was named before: shown once")
    return list(found.values()), notes


def _run_at(name: str) -> Path:
    path = Path(name)
    try:
        if not name or not path.exists():
            raise UsageError(f"there is no run {name or repr(name)}")
        above = path.absolute().parents[: _DEEPEST if path.is_file() else _DEEPEST - 1]
        for directory in [path, *above]:
            if _is_run(directory):
                return directory
        inside = sorted(str(directory) for directory in path.iterdir() if _is_run(directory)) if path.is_dir() else []
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if inside:
        raise UsageError(f"{name} is no run, but holds {len(inside)}: give those, such as {inside[-1]}")
    raise UsageError(f"{name} is no run: there is neither {', '.join(_FILES[:-1])} nor {_FILES[-1]}")


def _is_run(directory: Path) -> bool:
    return directory.is_dir() and any(os.path.lexists(directory / name) for name in _FILES)


def _newest() -> Path:
    runs = [path for path in run_directory.ROOT.glob("*/*") if _is_run(path)]
    if not runs:
        raise UsageError(f"there is no last run: no {run_directory.ROOT}/*/*/{run_directory.CONFIG}")
    return max(runs, key=lambda run: max(file.lstat().st_mtime for file in run.iterdir()))


def read_run(directory: Path) -> Run:
    """Read a run; nothing in it can be so wrong that this fails."""
    problems: list[str] = []
    notes: list[str] = []

    def read(name: str, reader: Callable[[Path], _Contents]) -> _Contents | None:
        path = directory / name
        if not os.path.lexists(path):
            return None
        try:
            if path.is_symlink() or not path.is_file():  # opening a pipe would wait for somebody to write to it
                raise OSError("it is a link, and not followed" if path.is_symlink() else "it is no regular file")
            return reader(path)
        except UsageError as error:  # names the file itself
            problems.append(str(error))
        except (OSError, ResultError, HistoryError) as error:
            problems.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
        return None

    result = read(run_directory.SUMMARY, read_result)
    config = read(run_directory.CONFIG, read_config_file)
    history = read(METRICS, read_history) or History()
    figures, unreadable = read_figures(directory)
    problems += unreadable
    if history.unreadable:
        problems.append(f"{directory / METRICS}: {history.unreadable:,} values are no numbers, or belong to no step")
    if not os.path.lexists(directory / run_directory.SUMMARY):
        notes.append(f"There is no {run_directory.SUMMARY}: the run was interrupted, or is still under way.")
    elif result is not None and result.steps is not None and history.last_step > result.steps:
        notes.append(
            f"{METRICS} goes on to step {history.last_step:,}, the result is that of step {result.steps:,}: "
            "the run was resumed, and has not ended again."
        )
    notes += [f"What looks wrong in the training: {line}" for line in (() if result is None else result.findings)]
    return Run(
        directory,
        _experiment(directory, result),
        result,
        dict(_options(config or {})),
        history,
        figures,
        notes,
        problems,
    )


def _experiment(directory: Path, result: Result | None) -> str | None:
    if result is not None and result.experiment is not None:
        return result.experiment
    folder = directory.absolute().parent.name  # runs/<experiment>/<time>
    return folder if folder in _experiments() else None


@functools.cache
def _experiments() -> frozenset[str]:
    return frozenset(list_experiments())


def _options(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Options by name: what a class is made with belongs to the option that names the class."""
    if isinstance(value, dict) and value:
        options = []
        for name, inner in value.items():
            here = prefix if name in ("class_path", "init_args") and prefix else f"{prefix}.{name}".removeprefix(".")
            options += _options(inner, here)
        return options
    return [(prefix, limited(_value(value)))]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return shown(value) if value is None or isinstance(value, bool) else str(value)
