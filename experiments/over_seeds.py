"""One experiment under several seeds: the command of a run, what it left, and what the mean of the runs comes to."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.atomic import read_bounded

SECONDS = "seconds"
_LARGEST = 4 * 2**20  # bytes of a summary
_LARGEST_NUMBER = 1e100


class RunsError(RuntimeError):
    """Runs that make no series."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds.

    Args:
        values: one of each seed, in their order.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    @property
    def std(self) -> float:
        """The standard deviation of the sample; 0 of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class MeanClaim:
    """What the mean over the seeds is held against, see :class:`experiments.claims.Claim`.

    Args:
        metric: the figure's name.
        mode: whether more or less of it is better.
        value: what the runs came to; NaN where one came to no number.
        bar: what the mean has to reach, itself a mean where it depends on the data.
        limit: the best possible or the published figure, if there is one.
        source: what the limit is, in words.
        runs_reaching: how many of the runs reach their own bar.
    """

    metric: str
    mode: Literal["min", "max"]
    value: Spread
    bar: float
    limit: Spread | None
    source: str
    runs_reaching: int

    @property
    def reached(self) -> bool:
        """Whether the mean reaches the bar."""
        margin = self.sign * (self.value.mean - self.bar)
        return margin >= 0.0 or math.isclose(self.value.mean, self.bar, rel_tol=1e-7)

    @property
    def sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    @property
    def distance(self) -> Spread | None:
        """By how much the figure is on the wrong side of the limit: negative where a published one was passed."""
        if self.limit is None:
            return None
        pairs = zip(self.limit.values, self.value.values, strict=True)
        return Spread(tuple(self.sign * (limit - value) for limit, value in pairs))


def command(experiment: str, seed: int, directory: Path, options: Sequence[str] = ()) -> list[str]:
    """The command that runs an experiment under a seed, in a directory of its own."""
    module = [sys.executable, "-m", f"experiments.{experiment}"]
    return [*module, *options, "--seed_everything", str(seed), "--run_dir", str(directory)]


def read_summary(path: Path) -> dict[str, Any]:
    """What a run has left.

    Raises:
        FileNotFoundError: it left nothing.
        RunsError: it cannot be read, or is no summary of a run.
    """
    try:
        summary = json.loads(read_bounded(path, _LARGEST))
        require_unicode(summary)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not _is_summary(summary):
        raise RunsError(f"{path} is no summary of a run")
    return dict(summary)


def require_unicode(held: object) -> None:
    """Raise a ``ValueError`` for JSON with half a surrogate pair in it, which JSON can hold and no file of text."""
    json.dumps(held, ensure_ascii=False).encode()


def _is_summary(summary: Any) -> bool:
    try:
        numbers = [*figures(summary).values()]
        for claim in summary["claims"]:
            numbers += [claim["bar"], *(claim[name] for name in ("value", "limit") if claim[name] is not None)]
            words = (claim["metric"], claim["source"], claim["mode"])
            if not all(isinstance(word, str) for word in words) or not isinstance(claim["reached"], bool):
                return False
        return isinstance(summary["dataset"], str) and all(map(is_plain_number, numbers))
    except (AttributeError, KeyError, TypeError):
        return False


def is_plain_number(value: object) -> bool:
    """Whether this is a number that one can reckon with: finite, and squared still finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER


def figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """What differs from seed to seed: test metrics, what the experiment adds, and the seconds in all.

    What was no number is left out.
    """
    tested = {name: value for name, value in summary.items() if name.startswith("test/")}
    known = {name: value for name, value in {**tested, **summary["examined"]}.items() if value is not None}
    return {**known, SECONDS: summary["seconds"]["total"]}


def spreads(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Every figure, over those of the runs that have it."""
    rows = [figures(summary) for summary in summaries]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: Spread(tuple(row[name] for row in rows if name in row)) for name in names}


def mean_claims(summaries: Sequence[Mapping[str, Any]]) -> list[MeanClaim]:
    """The claims of the runs, one by one; there are those that all of them were held against."""
    claims = []
    for held in zip(*(summary["claims"] for summary in summaries), strict=False):
        first = held[0]

        def values(name: str, held: Sequence[Mapping[str, Any]] = held) -> tuple[float, ...]:
            return tuple(math.nan if one.get(name) is None else float(one[name]) for one in held)

        claims.append(
            MeanClaim(
                metric=first["metric"],
                mode="min" if first["mode"] == "min" else "max",
                value=Spread(values("value")),
                bar=statistics.mean(values("bar")),
                limit=None if first.get("limit") is None else Spread(values("limit")),
                source=first.get("source", ""),
                runs_reaching=sum(one["reached"] for one in held),
            )
        )
    return claims


def describe(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line that names the data, a line for each figure, and one for each claim: what is claimed is the mean."""
    lines = [f"{len(summaries)} runs (dataset: {summaries[0]['dataset']})"]
    for name, spread in spreads(summaries).items():
        low, high = _short(min(spread.values)), _short(max(spread.values))
        lines.append(f"{name}: {_short(spread.mean)} +- {spread.std:.2g} ({low} to {high})")
    for claim in mean_claims(summaries):
        verdict = "reaches" if claim.reached else "IS SHORT OF"
        mean, bar = _short(claim.value.mean), _short(claim.bar)
        reached = f"reached by {claim.runs_reaching} of {len(summaries)} runs"
        lines.append(f"claim {claim.metric}: mean {mean} {verdict} {bar}; {reached}")
    return lines


def _short(value: float) -> str:
    return f"{value:.5g}"
