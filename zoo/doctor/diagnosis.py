"""What looks wrong in a run, in words."""

from __future__ import annotations

from collections.abc import Callable

from zoo.doctor.data_findings import unbalanced_predictions, unstandardised_inputs
from zoo.doctor.findings import Finding
from zoo.doctor.gradient_findings import (
    dead_units,
    exploding_gradients,
    overflow,
    parameters_in_no_optimizer,
    parameters_without_gradient,
    vanishing_gradients,
    zero_learning_rate,
)
from zoo.doctor.history import History
from zoo.doctor.learning_findings import (
    cannot_overfit_batch,
    chance_level,
    initial_loss,
    loss_not_falling,
    overfitting,
)

CHECKS: tuple[Callable[[History], Finding | None], ...] = (
    unstandardised_inputs,
    initial_loss,
    cannot_overfit_batch,
    zero_learning_rate,
    parameters_in_no_optimizer,
    parameters_without_gradient,
    overflow,
    exploding_gradients,
    vanishing_gradients,
    dead_units,
    loss_not_falling,
    chance_level,
    unbalanced_predictions,
    overfitting,
)

_STOPS_LEARNING = frozenset({"zero_learning_rate", "overflow", "exploding_gradients", "vanishing_gradients"})
_NOTHING_LEARNT = _STOPS_LEARNING | {"loss_not_falling"}

# What is not said where one of these has been said, as it follows from it.
_FOLLOWS_FROM = {
    "overflow": frozenset({"exploding_gradients"}),
    "parameters_without_gradient": frozenset({"dead_units"}),
    "loss_not_falling": _STOPS_LEARNING,
    "chance_level": _NOTHING_LEARNT,
    "unbalanced_predictions": _NOTHING_LEARNT | {"chance_level"},
}


def diagnose(history: History) -> list[Finding]:
    """What looks wrong, in about the order in which it is to be mended: causes before what may come of them.

    Thresholds are wide: a run that learns shall hear nothing. What needs many steps to be told is not said of a short
    run.
    """
    findings = [finding for check in CHECKS if (finding := check(history)) is not None]
    names = {finding.name for finding in findings}
    return [finding for finding in findings if not names & _FOLLOWS_FROM.get(finding.name, frozenset())]
