"""What looks wrong with the loss."""

from __future__ import annotations

import math

from zoo.doctor.findings import Finding
from zoo.doctor.history import History
from zoo.doctor.looks import first_losses, has_trained, late_looks, losses, mean, number, percent

_FALLEN = 0.98
_AT_CHANCE = 0.98
_RISEN = 1.2
_MANY_LABELS = 10  # a class, by which the entropy of the labels can be told


def initial_loss(history: History) -> Finding | None:
    """A cross-entropy far above that of a model that knows nothing, ln(classes)."""
    look = history.looks[0] if history.looks else None
    if look is None or look.step > 0 or look.cross_entropy is None or history.num_classes is None:
        return None
    expected = math.log(history.num_classes)
    chance = 1.0 + 2.0 / math.sqrt(max(1, look.samples))  # of few samples it may be far off
    if not expected + chance * max(0.5, 0.5 * expected) < look.cross_entropy < math.inf:
        return None
    return Finding(
        "initial_loss",
        f"the loss at initialisation is {number(look.cross_entropy)} where ln({history.num_classes}) = {expected:.2f} "
        "is expected",
        "the last layer's weights are too large, or the inputs are not standardised",
    )


def cannot_overfit_batch(history: History) -> Finding | None:
    """A model that cannot even learn a single batch by heart."""
    tried = history.overfit
    if not tried or not tried["has_failed"]:
        return None
    accuracy = "" if tried["accuracy"] is None else f" and an accuracy of {percent(tried['accuracy'])}"
    return Finding(
        "cannot_overfit_batch",
        f"a batch of {tried['samples']} samples cannot be overfitted: a loss of {number(tried['first_loss'])} came to "
        f"{number(tried['last_loss'])}{accuracy} in {tried['steps']} steps",
        "look whether gradients reach all layers, whether targets and outputs have the same order and shape, and "
        "whether the loss fits the outputs (logits, or probabilities); or the network is too small",
    )


def loss_not_falling(history: History) -> Finding | None:
    """A loss that is no lower than it was."""
    first, last = first_losses(history), losses(late_looks(history))
    if (
        not has_trained(history)
        or not first
        or not last
        or mean(last) <= mean(first) - (1 - _FALLEN) * abs(mean(first))
    ):
        return None
    start, end = history.looks[0], history.looks[-1]
    epochs = end.epoch - start.epoch
    when = "within the first epoch" if epochs == 0 else f"in {epochs + 1} epochs"
    rates = [rate for look in history.looks for rate in look.learning_rates]
    rate = f", with a learning rate of up to {number(max(rates))}" if rates else ""
    has_risen = mean(last) > mean(first) / _FALLEN
    return Finding(
        "loss_not_falling",
        f"the loss did not fall {when}: {number(mean(first))} in the first steps, {number(mean(last))} in the last of "
        f"{end.step - start.step + 1}{rate}",
        f"{'lower' if has_risen else 'raise'} the learning rate, look whether labels and inputs belong together, and "
        "try overfit_batch=True",
    )


def chance_level(history: History) -> Finding | None:
    """A classifier that has learnt no more than how frequent the classes are."""
    looks = [look for look in late_looks(history) if look.cross_entropy is not None and look.labels]
    if not has_trained(history) or not looks or history.num_classes is None:
        return None
    labels = [sum(counts) for counts in zip(*(look.labels for look in looks), strict=True)]
    total = sum(labels)
    chance, of = math.log(history.num_classes), f"ln({history.num_classes})"
    if total >= _MANY_LABELS * history.num_classes:
        chance, of = -sum(count / total * math.log(count / total) for count in labels if count), "the labels' entropy"
    reached = mean([look.cross_entropy for look in looks if look.cross_entropy is not None])
    if not reached > _AT_CHANCE * chance or chance == 0.0:
        return None
    accuracy = mean([look.accuracy or 0.0 for look in looks])
    return Finding(
        "chance_level",
        f"the training is at chance level: a cross-entropy of {number(reached)}, {of} is {number(chance)}, and an "
        f"accuracy of {percent(accuracy)} where the most frequent class alone gives {percent(max(labels) / total)}",
        "look whether labels and inputs belong together, then at the learning rate, and try overfit_batch=True",
    )


def overfitting(history: History) -> Finding | None:
    """A validation loss that rises while the training loss falls."""
    validations = [(step, loss) for step, loss in history.validations if math.isfinite(loss)]
    if len(validations) < 3:
        return None
    best_step, best = min(validations, key=lambda validation: validation[1])
    last_step, last = validations[-1]
    then = losses([look for look in history.looks if look.step <= best_step][-5:])
    now = losses(history.looks[-5:])
    least_rise = 0.02 * math.log(history.num_classes) if history.num_classes else 0.0
    if best <= 0.0 or last <= _RISEN * best or last - best <= least_rise or not then or mean(now) >= mean(then):
        return None
    return Finding(
        "overfitting",
        f"the validation loss rose from {number(best)} at step {best_step} to {number(last)} at step {last_step}, "
        f"while the training loss fell from {number(mean(then))} to {number(mean(now))}: overfitting",
        "take the best checkpoint, stop earlier (--patience), or use more data, augmentation, dropout or weight decay",
    )
