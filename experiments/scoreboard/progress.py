"""What a scoreboard prints: a line for each run, and about how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.over_seeds import SECONDS, Spread, figures
from experiments.scoreboard import words
from experiments.scoreboard.row import Row

_LEAVING = 2.0  # seconds from a run's last figure to the next run's first


class Progress:
    """Counts the runs, and estimates.

    Args:
        pending: seeds that have to be run, by experiment.
        known: seconds of a run as far as they are known, by experiment.
    """

    def __init__(self, pending: Mapping[str, Sequence[int]], known: Mapping[str, float]) -> None:
        self._left = {name: len(seeds) for name, seeds in pending.items()}
        self._known = dict(known)
        self._total = sum(self._left.values())
        self._width = max(map(len, pending), default=0)
        self._live = sys.stdout.isatty()

    def rest(self) -> str:
        """How long the rest takes, as far as that is known."""
        left = {name: count for name, count in self._left.items() if count}
        if not left:
            return "nothing left"
        unknown = [name for name in left if name not in self._known]
        known = sum(count * (self._known[name] + _LEAVING) for name, count in left.items() if name in self._known)
        told = [f"about {words.duration(known)} left"] if len(unknown) < len(left) else []
        if unknown:
            names = f"{unknown[0]}, which was" if len(unknown) == 1 else f"{len(unknown)} experiments, which were"
            told.append(f"{names} never timed")
        return ", and ".join(told)

    def begin(self, name: str, seed: int) -> None:
        """On a terminal, say what is under way, in a line that will be written over."""
        if self._live:
            print(f"{self._place(name, seed)}...", end="\r", flush=True)

    def done(self, name: str, seed: int, metric: str, summary: Mapping[str, Any], again: str | None) -> None:
        """A run came to its end."""
        found = figures(summary)
        took = found[SECONDS]
        self._known.setdefault(name, took)
        place = self._place(name, seed)
        self._left[name] -= 1
        figure = words.value(metric, found[metric]) if metric in found else "no number"
        self._say(f"{place}{figure:>9}  {took:6.1f} s  {self.rest()}{_why(again)}")

    def failed(self, name: str, seed: int, reason: str, again: str | None) -> None:
        """A run failed."""
        place = self._place(name, seed)
        self._left[name] -= 1
        self._say(f"{place}FAILED: {reason}{_why(again)}")

    def say(self, lines: Iterable[str]) -> None:
        """Lines between the runs."""
        for line in lines:
            self._say(line)

    def _place(self, name: str, seed: int) -> str:
        number = self._total - sum(self._left.values()) + 1
        return f"{number:{len(str(self._total))}}/{self._total}  {name:{self._width}} seed {seed:<2} "

    def _say(self, line: str) -> None:
        print(f"\x1b[2K{line}" if self._live else line, flush=True)


def _why(again: str | None) -> str:
    return f" (again: {again})" if again else ""


def result(row: Row) -> list[str]:
    """What an experiment came to, and whether it reaches what is claimed."""
    told = [f"{words.words(name)} {words.mean_and_std(name, spread)}" for name, spread in _told(row)]
    if row.seconds is not None:
        told.append(f"{words.mean_and_std(SECONDS, row.seconds)} ({len(row.seeds)} seed{'s'[: len(row.seeds) - 1]})")
    lines = [f"= {row.experiment}: {', '.join(told)}"] if told else []
    for claim in row.claims:
        if not claim.reached:
            needed = "at least" if claim.mode == "max" else "at most"
            bar = words.value(claim.metric, claim.bar)
            lines.append(f"! {row.experiment}: {words.words(claim.metric)} is SHORT OF {needed} {bar}")
    return lines + [f"! {row.experiment}: {remark}" for remark in row.remarks]


def _told(row: Row) -> list[tuple[str, Spread]]:
    names = dict.fromkeys([row.metric, *(claim.metric for claim in row.claims)])
    return [(name, row.figures[name]) for name in names if name in row.figures]
