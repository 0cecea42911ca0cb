"""A logger whose file is the record of a run."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


class MetricsCSV(Logger):
    """Writes one row for each call to ``metrics.csv``, at once, so that a crash loses none.

    The first columns are ``step`` and ``epoch``; new metrics become new columns. Made in a directory that already
    has the file, it goes on behind the rows that are there (a resume), or behind the first ``keep_rows`` of them; the
    file is changed only when there is a row to write.

    Args:
        directory: where ``metrics.csv`` goes.
        keep_rows: rows of an earlier part of the run to keep, ``None`` for all.

    Raises:
        OSError: a row cannot be written, such as on a full disk; the file then ends with the row before it.
    """

    def __init__(self, directory: str | os.PathLike[str], keep_rows: int | None = None) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.path = self.directory / "metrics.csv"
        self.columns = ["step", "epoch"]
        self.rows = 0
        self._kept: list[dict[str, str]] | None = None  # rows to go on behind, until the first new one comes
        if getattr(rank_zero_only, "rank", 0) == 0 and self.path.is_file():
            self._go_on(keep_rows)

    def _go_on(self, keep_rows: int | None) -> None:
        columns, rows = read_csv(self.path)
        self.columns = columns or self.columns
        self.rows = len(rows) if keep_rows is None else min(keep_rows, len(rows))
        self._kept = rows[: self.rows]

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.directory)

    @property
    def log_dir(self) -> str:
        """The directory of ``metrics.csv``; Lightning takes it for the trainer's ``log_dir``."""
        return str(self.directory)

    def earlier_rows(self) -> list[dict[str, float | str]]:
        """The rows that the next one goes behind, after a resume: what was logged, ``step`` included."""
        return [_values(row) for row in self._kept or []]

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in the checkpoint and in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": self.rows if step is None else step}
        row |= {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        if isinstance(row.get("epoch"), float) and row["epoch"].is_integer():
            row["epoch"] = int(row["epoch"])
        new = [name for name in row if name not in self.columns]
        try:
            if new or self._kept is not None or not self.path.is_file():
                self._rewrite(sorted(new))
            self._append(row)
        except OSError as error:
            raise OSError(f"{self.path} cannot be written ({error.strerror or error})") from error
        self.rows += 1

    def _rewrite(self, new_columns: list[str]) -> None:
        rows = self._kept
        if rows is None:
            rows = read_csv(self.path)[1] if self.path.is_file() else []
        self.directory.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.new")
        try:
            with beside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns + new_columns)
                writer.writeheader()
                writer.writerows(rows)
            beside.replace(self.path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self.columns += new_columns
        self._kept = None

    def _append(self, row: Mapping[str, Any]) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns).writerow(row)
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            rest = memoryview(text.getvalue().encode())
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)
                raise


def _values(row: Mapping[str, str]) -> dict[str, float | str]:
    return {name: _value(text) for name, text in row.items() if text}


def _value(text: str) -> float | str:
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    return text


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the complete rows of a CSV file; a row cut short by a crash is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(whole.splitlines())
    return list(reader.fieldnames or []), list(reader)
