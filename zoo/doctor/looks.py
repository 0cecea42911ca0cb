"""What the diagnoses ask of a history."""

from __future__ import annotations

import math
from collections.abc import Iterable

from zoo.doctor.history import History, Look

ENOUGH_STEPS = 100
"""Steps before which nothing is said of how well a model learns."""

_BEGINNING = 3
_LATE = 2 / 3


def has_trained(history: History) -> bool:
    """Whether the run minimises a loss, and is long enough for its learning to be judged."""
    return (
        history.is_automatic and bool(history.looks) and history.looks[-1].step - history.looks[0].step >= ENOUGH_STEPS
    )


def late_looks(history: History) -> list[Look]:
    """Those of the last third of the steps, and at least the last three."""
    looks = history.looks
    if not looks:
        return []
    first, last = looks[0].step, looks[-1].step
    return [look for look in looks if look.step >= first + _LATE * (last - first)] or looks[-_BEGINNING:]


def first_losses(history: History) -> list[float]:
    """The losses of the run's first steps."""
    return losses(history.looks[:_BEGINNING])


def losses(looks: Iterable[Look]) -> list[float]:
    """Their losses, as far as they are numbers."""
    return [look.loss for look in looks if look.loss is not None and math.isfinite(look.loss)]


def mean(values: list[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)


def number(value: float) -> str:
    """A number with three digits, such as ``0.25``, ``9.2``, ``1e-09`` or ``2.5e+06``."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share, such as ``37 %``."""
    return f"{100 * share:.0f} %"
