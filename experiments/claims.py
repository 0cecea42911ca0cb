"""What a run is held against: a limit that nothing can pass, or a published figure, and the bar it has to reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Claim:
    """A figure that a run has to reach.

    Args:
        metric: the figure's name in ``summary.json``, such as ``"test/accuracy"``.
        bar: what it has to reach; may depend on the limit.
        limit: the best possible or the published figure: a number, or the name of the data module's property; ``None``
            if there is none.
        source: what the limit is, in words; of a published figure ``"published for ..., Author et al. YEAR"``.
        mode: whether more (``"max"``) or less (``"min"``) of the metric is better.
        dataset: the data that the claim is about; on others nothing is claimed.
        applies: whether the data module's arguments are those that the claim is about; ``None``: any are.
    """

    metric: str
    bar: float | Callable[[Any], float]
    limit: float | str | None = None
    source: str = ""
    mode: Literal["min", "max"] = "max"
    dataset: str | None = None
    applies: Callable[[Any], bool] | None = None


PUBLISHED = "published for "
"""How the source of a published figure begins; behind it stand the architecture, a comma, and who published it."""


def hold(
    claims: Sequence[Claim], figures: Mapping[str, Any], data: object, *, whole_test: bool = True
) -> dict[str, Any]:
    """Hold a run against its claims; one that was not tested on all of the test split proves none of them.

    Returns:
        For ``summary.json``: ``limit`` and ``distance_to_limit`` of the first claim with a limit (how far the figure is
        on the wrong side of it: negative where a published figure was passed), and ``claims``, one by one. Numbers that
        are not there are ``None``.
    """
    held = [_hold(claim, figures, data) for claim in claims if whole_test and _applies(claim, data)]
    limited = next((claim for claim in held if claim["limit"] is not None), None)
    return {
        "limit": None if limited is None else limited["limit"],
        "distance_to_limit": None if limited is None else limited["distance_to_limit"],
        "claims": held,
    }


def _applies(claim: Claim, data: object) -> bool:
    if claim.dataset is not None and claim.dataset != getattr(data, "dataset_name", None):
        return False
    return claim.applies is None or claim.applies(data)


def _hold(claim: Claim, figures: Mapping[str, Any], data: object) -> dict[str, Any]:
    value = float(figures.get(claim.metric, math.nan))
    found = getattr(data, claim.limit) if isinstance(claim.limit, str) else claim.limit
    limit = None if found is None else float(found)  # a NumPy number is none for JSON
    bar = float(claim.bar(limit) if callable(claim.bar) else claim.bar)
    sign = 1.0 if claim.mode == "max" else -1.0
    return {
        "metric": claim.metric,
        "value": value,
        "bar": bar,
        "mode": claim.mode,
        # Metrics have 32 bits, in which 0.9905 is a little less than 0.9905.
        "reached": sign * (value - bar) >= 0.0 or math.isclose(value, bar, rel_tol=1e-7),
        "limit": limit,
        "distance_to_limit": None if limit is None else sign * (limit - value),
        "source": claim.source,
    }


def report(claims: Sequence[Claim], summary: Mapping[str, Any]) -> list[str]:
    """A line for each claim; one that is not reached says so."""
    lines = []
    for held in summary["claims"]:
        above, below = ("above", "below") if held["mode"] == "max" else ("below", "above")
        needed = "at least" if held["mode"] == "max" else "at most"
        line = f"{held['metric']} {held['value']:.4g}, claimed {needed} {held['bar']:.4g}"
        if held["limit"] is not None and not math.isnan(held["value"]):
            distance = held["distance_to_limit"]
            side = below if distance >= 0.0 else above
            line += f"; {abs(distance):.2g} {side} {held['limit']:.4g}, {held['source']}"
        lines.append(f"{'reached' if held['reached'] else 'SHORT OF':9} {line}")
    if claims and not summary["claims"]:
        wanted = {claim.dataset for claim in claims}
        reason = (
            ("the data's options are not those it is about, or " if any(claim.applies for claim in claims) else "")
            + "only a part of the test split was tested"
            if wanted & {None, summary["dataset"]}
            else f"the data are {summary['dataset']}, not {', '.join(sorted(map(str, wanted)))}"
        )
        lines.append(f"claim     none: {reason}")
    return lines
