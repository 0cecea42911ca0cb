"""Where one more run has to be, if nothing is wrong with the code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from experiments.over_seeds import MeanClaim, Spread
from experiments.scoreboard.words import is_share

FEWEST = 3
"""Seeds without which nothing can be said: of two values the deviation says next to nothing."""

# Student's t of the probability 0.9995, by degrees of freedom; in between that of the fewer.
_T = {2: 31.60, 3: 12.93, 4: 8.611, 5: 6.869, 6: 5.960, 7: 5.408, 8: 5.042, 9: 4.781, 14: 4.141, 19: 3.884, 29: 3.660}
_FLOOR = 0.01  # of the mean


@dataclass(frozen=True)
class Interval:
    """Where a figure has to be.

    Args:
        of: what is in it: ``"value"``, the figure itself, or ``"distance"``, by how much it is on the wrong side of a
            limit that is another with every seed's data.
        low: the least.
        high: the most.
    """

    of: Literal["value", "distance"]
    low: float
    high: float


def interval(claim: MeanClaim) -> Interval | None:
    """The interval in which one more seed's figure lies with a probability of 99.9 %.

    It is the prediction interval of Student's t for one new observation, ``mean ± t std sqrt(1 + 1/n)``, and never
    narrower than a hundredth of the mean to either side: seeds that all came to 100 % do not show that no machine's
    rounding ever costs a sample. Where the limit differs from seed to seed, as the data do, it is the distance that
    counts: 88 % is good where 88.2 % is the best possible, and bad where it is 93 %.

    Returns:
        ``None`` of fewer than three seeds.
    """
    seeds = len(claim.value.values)
    if seeds < FEWEST:
        return None
    limit = claim.limit
    follows_data = limit is not None and max(limit.values) > min(limit.values) and claim.distance is not None
    spread: Spread = claim.distance if follows_data and claim.distance is not None else claim.value
    t = _T[max(freedom for freedom in _T if freedom < seeds)]
    half = max(t * spread.std * math.sqrt(1.0 + 1.0 / seeds), _FLOOR * abs(claim.value.mean))
    low, high = spread.mean - half, spread.mean + half
    if follows_data:
        return Interval("distance", low, high)
    return Interval(
        "value",
        max(low, 0.0) if min(spread.values) >= 0.0 else low,
        min(high, 1.0) if is_share(claim.metric) else high,
    )


def place_of(held: dict[str, object], bounds: Interval) -> float | None:
    """What of a run's claim (see :func:`experiments.claims.hold`) has to be in the interval."""
    found = held["value"] if bounds.of == "value" else held["distance_to_limit"]
    return float(found) if isinstance(found, int | float) else None
