"""What looks wrong with gradients, units, and what is trained at all."""

from __future__ import annotations

import math
import statistics

from zoo.doctor.findings import Finding
from zoo.doctor.history import WINDOW, History
from zoo.doctor.looks import first_losses, late_looks, losses, mean, number, percent

_VANISHED = 1e-5
_EXPLODED = 100.0
_LARGE_NORM = 10.0
_ALWAYS_LARGE_NORM = 1e4
_DEAD = 0.2
_ENOUGH_SAMPLES = 100
_ENOUGH_LOOKS = 3
_NEAR_OVERFLOW = 1e18  # the square of ten times as much is no number of 32 bits any more
_NEAR_LIMIT = 0.1


def zero_learning_rate(history: History) -> Finding | None:
    """A parameter group that is never trained."""
    rates = [look.learning_rates for look in history.looks if look.learning_rates]
    if len(rates) < _ENOUGH_LOOKS:
        return None
    always_zero = [index for index, group in enumerate(zip(*rates, strict=False)) if not any(group)]
    if not always_zero:
        return None
    groups = f"of parameter group {always_zero[0]} " if len(rates[0]) > 1 else ""
    return Finding(
        "zero_learning_rate",
        f"the learning rate {groups}was 0 at all {len(rates)} looks",
        "set lr, and look whether a schedule begins at 0 and never gets on, as where it steps once an epoch",
    )


def parameters_in_no_optimizer(history: History) -> Finding | None:
    """Parameters that want a gradient, and that no optimizer changes."""
    names = history.unused
    if not names:
        return None
    return Finding(
        "parameters_in_no_optimizer",
        f"{_count(names)} in no optimizer: {_some(names)}",
        "hand all parameters to the optimizer, or freeze these with requires_grad_(False)",
    )


def parameters_without_gradient(history: History) -> Finding | None:
    """Parameters that the loss does not depend on, or not any more."""
    names = history.without_gradient
    if not names or history.num_looks < _ENOUGH_LOOKS:
        return None
    return Finding(
        "parameters_without_gradient",
        f"{_count(names)} without a gradient other than zero at all {history.num_looks} looks: {_some(names)}",
        "look whether forward uses them, whether detach(), no_grad() or an argmax cuts them off, and freeze what is "
        "not to be trained with requires_grad_(False)",
    )


def overflow(history: History) -> Finding | None:
    """Values that are no numbers, or nearly none."""
    for look in history.looks:
        for what, value in (("the loss", look.loss), ("the gradient norm", look.gradient_norm)):
            if value is not None and not abs(value) < _NEAR_OVERFLOW:
                return _overflow(f"{what} is {number(value)} at step {look.step}")
        if look.peak is not None and look.peak_limit is not None and look.peak > _NEAR_LIMIT * look.peak_limit:
            return _overflow(
                f"an activation of {number(look.peak)} at step {look.step} is near the largest number of its type, "
                f"{number(look.peak_limit)}"
            )
    return None


def _overflow(evidence: str) -> Finding:
    return Finding(
        "overflow",
        evidence,
        "lower the learning rate, clip the gradients, standardise inputs and targets; in 16 bits use bf16-mixed, which "
        "has the range of 32",
    )


def exploding_gradients(history: History) -> Finding | None:
    """Gradients that become a hundred times as large as in the first steps, or are very large throughout."""
    norms = [
        (look.gradient_norm, look.step)
        for look in history.looks
        if look.gradient_norm is not None and math.isfinite(look.gradient_norm)
    ]
    if len(norms) < 2:
        return None
    first = max(norm for norm, _ in norms[: min(_ENOUGH_LOOKS, len(norms) - 1)])
    peak, step = max(norms)
    middle = statistics.median(norm for norm, _ in norms)
    if peak > max(_EXPLODED * first, _LARGE_NORM):
        evidence = (
            f"gradients explode: their norm was at most {number(first)} in the first steps and is {number(peak)} at "
            f"step {step}"
        )
    elif middle > _ALWAYS_LARGE_NORM:
        evidence = f"gradients are very large: their norm is {number(middle)} in the median, up to {number(peak)}"
    else:
        return None
    clip = history.gradient_clip_val
    if not clip:
        return Finding(
            "exploding_gradients",
            evidence,
            "clip them with gradient_clip_val=1.0 (--trainer.gradient_clip_val 1.0), lower the learning rate, "
            "standardise inputs and targets",
        )
    before, after = first_losses(history), losses(late_looks(history))
    if before and after and mean(after) < mean(before):
        return None  # what clipping is for
    return Finding(
        "exploding_gradients",
        f"{evidence}, before they are clipped at {number(clip)}",
        "lower the learning rate, standardise inputs and targets",
    )


def vanishing_gradients(history: History) -> Finding | None:
    """A layer that hardly gets a gradient, beside the last one."""
    ratios: dict[str, list[float]] = {}
    norms: dict[str, list[float]] = {}
    last = ""
    for look in history.looks:
        layers = {name: norm for name, norm in look.layer_norms.items() if 0.0 < norm < math.inf}
        if not layers:
            continue
        last = list(layers)[-1]
        for name, norm in layers.items():
            ratios.setdefault(name, []).append(norm / layers[last])
            norms.setdefault(name, []).append(norm)
    medians = {name: statistics.median(values) for name, values in ratios.items() if len(values) >= _ENOUGH_LOOKS}
    vanished = [name for name, ratio in medians.items() if ratio < _VANISHED]
    if not vanished:
        return None
    worst = min(vanished, key=lambda name: medians[name])
    others = f" ({len(vanished)} layers have less than {number(_VANISHED)} of it)" if len(vanished) > 1 else ""
    return Finding(
        "vanishing_gradients",
        f"the gradient norm of {worst} is {number(statistics.median(norms[worst]))} in the median, "
        f"{number(1 / medians[worst])} times less than that of the last layer, {last}{others}: vanishing gradients",
        "use ReLU or GELU instead of sigmoid and tanh, norm layers, residual connections, or an initialisation that "
        "keeps the variance (init='kaiming' or 'xavier')",
    )


def dead_units(history: History) -> Finding | None:
    """Units behind a ReLU that no sample makes greater than zero, so that they do not learn any more."""
    looks = history.looks[-WINDOW:]
    samples = sum(look.samples for look in looks)
    if len(looks) < WINDOW or samples < _ENOUGH_SAMPLES or not looks[-1].dead:
        return None
    dead = {layer: share for layer, share in looks[-1].dead.items() if share >= _DEAD}
    if not dead:
        return None
    worst = max(dead, key=lambda layer: dead[layer])
    others = f" (and of {len(dead) - 1} other layers at least {percent(_DEAD)})" if len(dead) > 1 else ""
    return Finding(
        "dead_units",
        f"{percent(dead[worst])} of the units of {worst} are dead: zero for all {samples} samples of the last {WINDOW} "
        f"looks{others}",
        "lower the learning rate, warm it up, or use LeakyReLU or GELU; look whether biases began far below zero",
    )


def _count(names: list[str]) -> str:
    return "1 parameter is" if len(names) == 1 else f"{len(names)} parameters are"


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
