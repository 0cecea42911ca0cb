"""One figure of the benchmark: ours and a baseline, measured in turn, and the ratio of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Ours and the baseline, measured one right after the other.

    Args:
        ours: as measured, in the comparison's unit.
        baseline: likewise.
        note: what else is to be known of this round, such as an accuracy.
    """

    ours: float
    baseline: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the baseline."""
        return self.ours / self.baseline


def median_ratio(pairs: Sequence[Pair]) -> float:
    """The median of the ratios of pairs, on which a disturbed round has no influence."""
    return statistics.median(pair.ratio for pair in pairs)


def ratio_of_means(pairs: Sequence[Pair]) -> float:
    """The mean of ours over the mean of the baselines, where rounds differ by more than disturbances, such as seeds."""
    return statistics.fmean(pair.ours for pair in pairs) / statistics.fmean(pair.baseline for pair in pairs)


@dataclass(frozen=True)
class Comparison:
    """What is compared, and what the ratio must be.

    Args:
        name: for ``--only``.
        ours: what is ours, in words.
        baseline: what it is held against, in words.
        unit: of what is measured, such as ``"s"``.
        must: the bound that the ratio, ours over the baseline, must keep; ``None`` for a figure without one.
        aim: what it should be.
        measure: measures so many rounds, and gives each when it is done.
        more_is_better: whether ``must`` is the least that the ratio must be, not the most.
        summarize: makes one ratio of all rounds.
        skipped: why it cannot be measured on this machine, or ``None``.
        by_default: whether it is measured where ``--only`` does not name it.
    """

    name: str
    ours: str
    baseline: str
    unit: str
    must: float | None
    aim: float | None
    measure: Callable[[int], Iterable[Pair]]
    more_is_better: bool = False
    summarize: Callable[[Sequence[Pair]], float] = median_ratio
    skipped: Callable[[], str | None] = lambda: None
    by_default: bool = True

    def is_kept(self, ratio: float) -> bool:
        """Whether a ratio keeps the bound, if there is one."""
        if self.must is None:
            return True
        return ratio >= self.must if self.more_is_better else ratio <= self.must


def alternate(ours: Callable[[], float], baseline: Callable[[], float], rounds: int) -> Iterator[Pair]:
    """Measure both in turn, the one that goes first changing each round, as the machine may slow down or speed up."""
    for number in range(rounds):
        if number % 2:
            second = baseline()
            yield Pair(ours(), second)
        else:
            first = ours()
            yield Pair(first, baseline())
