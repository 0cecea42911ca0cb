"""An experiment's line on the board: made of the runs of its seeds, and kept in ``scoreboard.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.over_seeds import SECONDS, MeanClaim, Spread, is_plain_number, mean_claims, spreads
from experiments.scoreboard.about import About
from experiments.scoreboard.interval import interval

UNKNOWN: Mapping[str, Any] = {
    "machine": {},
    "device": "",
    "precision": "",
    "versions": {},
    "commit": None,
    "clean": False,
    "code": "",
    "date": "",
}
"""The circumstances of a row without a single run."""


@dataclass(frozen=True)
class Finished:
    """A run that came to its end.

    Args:
        summary: what it left.
        circumstances: as those of a row.
    """

    summary: Mapping[str, Any]
    circumstances: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """What the runs of an experiment came to.

    Args:
        experiment: its name.
        architecture: the network in words.
        metric: which figure is on the board.
        wanted: how many seeds there should be.
        seeds: those that came to a result.
        failed: why a seed came to none, by seed.
        figures: every figure over the seeds, the seconds among them.
        claims: what the figures are held against.
        dataset: what was really learned from.
        stand_in: whether these are other data than those that the claims are about.
        parameters: of the network.
        circumstances: machine, device, precision, versions, commit, whether it was clean, digest of the code, date.
    """

    experiment: str
    architecture: str
    metric: str
    wanted: int
    seeds: Sequence[int] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    figures: Mapping[str, Spread] = field(default_factory=dict)
    claims: Sequence[MeanClaim] = ()
    dataset: str = ""
    stand_in: bool = False
    parameters: int | None = None
    circumstances: Mapping[str, Any] = field(default_factory=lambda: UNKNOWN)

    @property
    def is_complete(self) -> bool:
        """Whether every seed came to a result."""
        return len(self.seeds) == self.wanted and not self.failed

    @property
    def is_quotable(self) -> bool:
        """Whether its figures may be told elsewhere: all seeds, on the data that the claims are about."""
        return self.is_complete and not self.stand_in

    @property
    def remarks(self) -> list[str]:
        """What one has to know before reading the figures, worst first."""
        reasons = dict.fromkeys(self.failed.values())
        notes = [f"{len(self.failed)} of {self.wanted} seeds failed: {'; '.join(reasons)}"] if self.failed else []
        missing = self.wanted - len(self.seeds) - len(self.failed)
        notes += [f"incomplete: {len(self.seeds)} of {self.wanted} seeds"] if missing else []
        return notes + ([f"on {self.dataset}, a stand-in: no figure of this experiment"] if self.stand_in else [])

    @property
    def board_claims(self) -> Sequence[MeanClaim]:
        """The claims about the metric on the board, then the others."""
        return sorted(self.claims, key=lambda claim: claim.metric != self.metric)

    @property
    def seconds(self) -> Spread | None:
        return self.figures.get(SECONDS)


def row_of(about: About, wanted: int, runs: Mapping[int, Finished], failed: Mapping[int, str]) -> Row:
    """Make a row of an experiment's runs.

    Args:
        about: the experiment.
        wanted: how many seeds there should be.
        runs: those that came to their end, by seed.
        failed: why the others did not, by seed.
    """
    reasons = {seed: _unusable(about, run.summary, runs) for seed, run in runs.items()}
    failed = {**failed, **{seed: reason for seed, reason in reasons.items() if reason is not None}}
    failed = dict(sorted(failed.items()))
    good = {seed: run for seed, run in sorted(runs.items()) if seed not in failed}
    summaries = [run.summary for run in good.values()]
    if not summaries:
        return Row(about.name, about.architecture, about.metric, wanted, failed=failed)
    newest = max((run.circumstances for run in good.values()), key=lambda one: str(one["date"]))
    whole = {name: spread for name, spread in spreads(summaries).items() if len(spread.values) == len(summaries)}
    parameters = summaries[0].get("parameters")
    return Row(
        experiment=about.name,
        architecture=about.architecture,
        metric=about.metric,
        wanted=wanted,
        seeds=tuple(good),
        failed=failed,
        figures=whole,
        claims=[claim for claim in mean_claims(summaries) if claim.metric in whole],
        dataset=summaries[0]["dataset"],
        stand_in=_is_stand_in(about, summaries[0]),
        parameters=parameters if isinstance(parameters, int) else None,
        circumstances={
            **newest,
            "clean": all(run.circumstances["clean"] for run in good.values()),
            "device": str(summaries[0].get("device", "")),
            "precision": str(summaries[0].get("precision", "")),
        },
    )


def _is_stand_in(about: About, summary: Mapping[str, Any]) -> bool:
    return bool(about.datasets) and summary["dataset"] not in about.datasets


def _unusable(about: About, summary: Mapping[str, Any], runs: Mapping[int, Finished]) -> str | None:
    """Why a run that came to its end has no place in a mean."""
    values = [summary.get(about.metric, summary["examined"].get(about.metric))]
    values += [claim["value"] for claim in summary["claims"]]
    if any(value is None or not math.isfinite(value) for value in values):
        return f"{about.metric} or another claimed figure is no number"
    if _is_stand_in(about, summary) and not all(_is_stand_in(about, other.summary) for other in runs.values()):
        return f"it ran on {summary['dataset']}, other seeds on {' or '.join(sorted(about.datasets))}"
    return None


# ------------------------------------------------------------------ JSON


class DamagedError(ValueError):
    """What is no row of a board, in words."""


def row_as_json(row: Row) -> dict[str, Any]:
    """All of the row, with what is derived from it."""
    return {
        "architecture": row.architecture,
        "metric": row.metric,
        "complete": row.is_complete,
        "wanted": row.wanted,
        "seeds": list(row.seeds),
        "failed": {str(seed): reason for seed, reason in row.failed.items()},
        "dataset": row.dataset,
        "stand_in": row.stand_in,
        "parameters": row.parameters,
        "figures": {name: _spread_as_json(spread) for name, spread in row.figures.items()},
        "claims": [_claim_as_json(claim) for claim in row.claims],
        **{name: row.circumstances[name] for name in UNKNOWN},
    }


def _spread_as_json(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "std": spread.std, "values": list(spread.values)}


def _claim_as_json(claim: MeanClaim) -> dict[str, Any]:
    bounds, distance = interval(claim), claim.distance
    return {
        "metric": claim.metric,
        "mode": claim.mode,
        "bar": claim.bar,
        "reached": claim.reached,
        "runs_reaching": claim.runs_reaching,
        "limit": None if claim.limit is None else _spread_as_json(claim.limit),
        "source": claim.source,
        "ahead_by": None if distance is None else -distance.mean,
        "interval": None if bounds is None else {"of": bounds.of, "low": bounds.low, "high": bounds.high},
    }


def row_from_json(name: str, held: Any) -> Row:
    """The row, taken to be by somebody else.

    Raises:
        DamagedError: it is none.
    """
    try:
        figures = {str(figure): _spread(value) for figure, value in held["figures"].items()}
        row = Row(
            experiment=name,
            architecture=_typed(held["architecture"], str),
            metric=_typed(held["metric"], str),
            wanted=_typed(held["wanted"], int),
            seeds=tuple(_typed(seed, int) for seed in held["seeds"]),
            failed={int(seed): _typed(reason, str) for seed, reason in held["failed"].items()},
            figures=figures,
            claims=[_claim(claim, figures) for claim in held["claims"]],
            dataset=_typed(held["dataset"], str),
            stand_in=_typed(held["stand_in"], bool),
            parameters=None if held["parameters"] is None else _typed(held["parameters"], int),
            circumstances={key: _like(held[key], default) for key, default in UNKNOWN.items()},
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedError(f"the row of {name}: {what}") from error
    if len(set(row.seeds)) < len(row.seeds):
        raise DamagedError(f"the row of {name}: a seed stands in it twice")
    if not row.seeds and (figures or row.claims):
        raise DamagedError(f"the row of {name}: figures, and no seed that they are of")
    limits = [claim.limit for claim in row.claims if claim.limit is not None]
    if any(len(spread.values) != len(row.seeds) for spread in [*figures.values(), *limits]):
        raise DamagedError(f"the row of {name}: figures of another number of seeds than {len(row.seeds)}")
    facts = [*row.circumstances["machine"].values(), *row.circumstances["versions"].values()]
    if not all(fact is None or isinstance(fact, str) or is_plain_number(fact) for fact in facts):
        raise DamagedError(f"the row of {name}: machine or versions that are no plain facts")
    if row.seeds and not {row.metric, SECONDS} <= figures.keys():
        raise DamagedError(f"the row of {name}: neither {row.metric} nor {SECONDS} may be missing")
    return row


def _claim(held: Any, figures: Mapping[str, Spread]) -> MeanClaim:
    return MeanClaim(
        metric=_typed(held["metric"], str),
        mode="min" if held["mode"] == "min" else "max",
        value=figures[held["metric"]],
        bar=_number(held["bar"]),
        limit=None if held["limit"] is None else _spread(held["limit"]),
        source=_typed(held["source"], str),
        runs_reaching=_typed(held["runs_reaching"], int),
    )


def _spread(held: Any) -> Spread:
    return Spread(tuple(_number(value) for value in held["values"]))


def _number(value: Any) -> float:
    if not is_plain_number(value):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _like(value: Any, default: Any) -> Any:
    return value if value is None and default is None else _typed(value, str if default is None else type(default))
