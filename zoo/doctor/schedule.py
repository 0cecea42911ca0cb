"""When to look: seldom, and at the same batches whether a run was resumed or not."""

from __future__ import annotations

import math

_FOR_THE_BEGINNING = 10  # looks
_LONG = 1_000_000  # batches, of a run that does not know its length


class LookSchedule:
    """Which batches of a run are looked at: closely spaced at the beginning, then evenly.

    Batches 0, 1, 2, 4, 8 and so on up to the interval at which the rest is looked at, and the last one. Where the
    length is not known, each look is a certain factor behind the one before, so that a million batches have ``looks``.

    Args:
        looks: about how many in all; at least 2.
        num_batches: of the whole run; ``None`` if that is not known.

    Example:
        >>> schedule = LookSchedule(looks=15, num_batches=100)
        >>> [batch for batch in range(100) if schedule.following(batch) == batch]
        [0, 1, 2, 4, 8, 13, 26, 39, 52, 65, 78, 91, 99]
    """

    def __init__(self, looks: int, num_batches: int | None) -> None:
        self._last = None if num_batches is None else num_batches - 1
        self._interval: int | None = None
        if num_batches is not None:
            evenly = looks - min(_FOR_THE_BEGINNING, looks // 2)
            self._interval = max(1, math.ceil(num_batches / evenly))
        self._factor = _LONG ** (1.0 / looks)

    def following(self, batch: int) -> int:
        """The first batch to be looked at from ``batch`` on, counted from 0 over the whole run."""
        if self._interval is None:
            following, place = 0, 1.0
            while following < batch:
                place *= self._factor
                following = max(following + 1, int(place))
            return following
        evenly = -(-batch // self._interval) * self._interval
        doubling = 1 << (batch - 1).bit_length() if batch > 1 else batch
        following = min(evenly, doubling) if doubling < self._interval else evenly
        return self._last if self._last is not None and batch <= self._last < following else following
