"""What looks wrong with what goes in and what comes out."""

from __future__ import annotations

from zoo.doctor.findings import Finding
from zoo.doctor.history import History
from zoo.doctor.looks import has_trained, late_looks, number, percent

_LARGE = 10.0
_SMALL = 1e-3
_ONE_CLASS = 0.9
_MORE_THAN_LABELLED = 1.3


def unstandardised_inputs(history: History) -> Finding | None:
    """A first batch far from mean 0 and standard deviation 1, before a network that does not see to it itself."""
    if not history.inputs or history.has_input_norm:
        return None
    mean, std = history.inputs["mean"], history.inputs["std"]
    if abs(mean) <= _LARGE and std <= _LARGE and not 0.0 < std < _SMALL:
        return None
    feature = history.inputs.get("feature")
    what = "the inputs of the first batch have" if feature is None else f"feature {feature:.0f} of the first batch has"
    return Finding(
        "unstandardised_inputs",
        f"{what} mean {number(mean)} and standard deviation {number(std)}",
        "standardise them to mean 0 and standard deviation 1, with the statistics of the training data",
    )


def unbalanced_predictions(history: History) -> Finding | None:
    """Nearly all is taken for one class, which not nearly all is."""
    looks = [look for look in late_looks(history) if look.predictions]
    if not looks or not has_trained(history):
        return None
    predicted = [sum(counts) for counts in zip(*(look.predictions for look in looks), strict=True)]
    labelled = [sum(counts) for counts in zip(*(look.labels for look in looks), strict=True)]
    most = predicted.index(max(predicted))
    share, true_share = predicted[most] / sum(predicted), labelled[most] / sum(labelled)
    if share < _ONE_CLASS or share < _MORE_THAN_LABELLED * true_share:
        return None
    return Finding(
        "unbalanced_predictions",
        f"{percent(share)} of the predictions are class {most}, which {percent(true_share)} of the labels are",
        "weigh the classes in the loss, or draw rare ones more often; look whether batches hold samples of all classes",
    )
