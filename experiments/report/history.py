"""What was logged during a run: ``metrics.csv`` as series over the steps, and as a table over the epochs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.atomic import read_bounded
from zoo.metrics_csv import read_csv

_LARGEST = 64 * 1024 * 1024
_MOST_VALUES = 2_000_000  # a gigabyte, as they are read
_LARGEST_STEP = 2**53  # the last whole number that a float, and so an axis, can tell from the next
_PLACES = ("step", "epoch")


class HistoryError(ValueError):
    """A file that is no record of a run, in a sentence."""


@dataclass(frozen=True)
class Series:
    """A metric over the steps.

    Args:
        steps: in ascending order.
        values: as many; those that are not finite are NaN.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def finite(self) -> list[float]:
        """The values that can be drawn."""
        return [value for value in self.values if math.isfinite(value)]


@dataclass(frozen=True)
class History:
    """All that was logged.

    Args:
        series: by the name of the metric, in the order of the columns.
        epochs: the last value of each metric within an epoch, by the epoch's number, which counts from 0.
        unreadable: how many values were no numbers, or belonged to no step.
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    unreadable: int = 0

    @property
    def last_step(self) -> int:
        """The highest step that something was logged at, -1 if nothing was."""
        return max((series.steps[-1] for series in self.series.values() if series.steps), default=-1)


def read_history(path: Path) -> History:
    """Read ``metrics.csv``.

    Raises:
        OSError: the file cannot be read, or is larger than 64 MiB.
        HistoryError: it is none that a run writes, or holds more than two million values.
    """
    try:
        text = read_bounded(path, _LARGEST).decode()
        written = text.splitlines()
        columns = next(csv.reader(written), [])
        # A short row is filled up with empty values: the file may be far smaller than what is made of it.
        if len(columns) * len(written) > _MOST_VALUES:
            raise HistoryError(f"it holds more than {_MOST_VALUES:,} values")
        if written and "step" not in columns:
            raise HistoryError("it has no column 'step'")
        return _history(*read_csv(path))
    except UnicodeDecodeError as error:
        raise HistoryError(f"it is no UTF-8 text (byte {error.start})") from error
    except csv.Error as error:
        raise HistoryError(f"it is no table of values separated by commas ({error})") from error


def _history(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> History:
    names = [name for name in dict.fromkeys(columns) if name not in _PLACES]
    points: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    epochs: dict[int, dict[str, float]] = {}
    unreadable = 0
    for row in rows:
        step, epoch = _count(row.get("step")), _count(row.get("epoch"))
        for name in names:
            text = row[name]
            if not text:
                continue
            value = _number(text)
            if value is None or step is None:
                unreadable += 1
                continue
            points[name].append((step, value))
            if epoch is not None:
                epochs.setdefault(epoch, {})[name] = value
    # A stable sort: of several values at one step the last one was logged last.
    series = {
        name: Series(*map(list, zip(*sorted(found, key=_step), strict=True))) for name, found in points.items() if found
    }
    return History(series, dict(sorted(epochs.items())), unreadable)


def _step(point: tuple[int, float]) -> int:
    return point[0]


def _count(text: str | None) -> int | None:
    value = _number(text or "")
    return int(value) if value is not None and value.is_integer() and 0 <= value <= _LARGEST_STEP else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else math.nan
