"""How well a classifier's scores put the samples of a class before the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.confusion import class_labels
from zoo.figures.style import new_figure, series, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    Curve = tuple[Tensor, Tensor, Tensor]

Array = npt.NDArray[Any]

_MOST_CURVES = 10
_NEARLY_ALL = 0.995


@dataclass(frozen=True, eq=False)  # of two classes of one name, too, each is another
class _Ranking:
    """One class against all others."""

    label: str
    roc: Curve
    """False positive rate, true positive rate, thresholds."""
    precision_recall: Curve
    """Precision, recall, thresholds."""
    auroc: float
    average_precision: float


def roc_and_precision_recall(
    probabilities: Array, targets: Array, title: str, class_names: Sequence[str] | None = None
) -> Figure:
    """The ROC curve and the precision-recall curve, with the area under each, of each class against all others.

    Of two classes the second is drawn, of more than ten those with the least area under the ROC curve. Where all curves
    are close to the best corner, that is what is shown.

    Args:
        probabilities: ``(samples, classes)`` float.
        targets: ``(samples,)`` class indices. A class with no sample, or with all of them, has no curve.
        title: of the figure.
        class_names: by class; ``None`` are their numbers.

    Raises:
        ValueError: not as many names as classes, or no class with and without samples.
    """
    from torchmetrics.classification import BinaryPrecisionRecallCurve, BinaryROC

    classes = probabilities.shape[1]
    names = class_labels(classes, class_names)
    drawn = range(1, 2) if classes == 2 else range(classes)
    found = [_rank(f"class {names[index]}", probabilities[:, index], targets == index) for index in drawn]
    rankings = [ranking for ranking in found if ranking is not None]
    if not rankings:
        raise ValueError("all samples are of one class, there is nothing to tell apart")
    shown = rankings
    if len(rankings) > _MOST_CURVES:
        least = sorted(rankings, key=lambda ranking: ranking.auroc)[:_MOST_CURVES]
        shown = [ranking for ranking in rankings if ranking in least]
    with style():
        figure = new_figure(title, 11.0, 4.9)
        roc, recall = figure.subplots(1, 2)
        for index, ranking in enumerate(shown):
            look: dict[str, Any] = {"linewidth": 1.5, **series(index)}
            BinaryROC().plot(ranking.roc, ax=roc)
            roc.lines[-1].set(label=f"{ranking.label}: {_area(ranking.auroc)}", **look)
            BinaryPrecisionRecallCurve().plot(ranking.precision_recall, ax=recall)
            area = f"{ranking.label}: {_area(ranking.average_precision)}"
            recall.lines[-1].set(label=area, drawstyle="steps-post", **look)
        roc.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle=(0, (1, 3)))
        few = f" ({len(shown)} lowest of {len(rankings)})" if len(shown) < len(rankings) else ""
        for ax, xlabel, ylabel, what in (
            (roc, "false positive rate", "true positive rate", "area under the curve"),
            (recall, "recall", "precision", "average precision"),
        ):
            ax.set(xlabel=xlabel, ylabel=ylabel)
            ax.grid(visible=True)
            ax.legend(title=what + few, loc="lower right" if ax is roc else "lower left", fontsize=9)
        _enlarge(roc, recall, shown)
        return figure


def _area(area: float) -> str:
    """Rounded down: what is not perfect shall not look as if it were."""
    return f"{math.floor(area * 1e5) / 1e5:.5f}"


def _rank(label: str, scores: Array, is_class: Array) -> _Ranking | None:
    from torch import from_numpy
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_precision_recall_curve,
        binary_roc,
    )

    if is_class.all() or not is_class.any():
        return None
    given = from_numpy(np.ascontiguousarray(scores)), from_numpy(is_class.astype(np.int64))
    return _Ranking(
        label,
        binary_roc(*given, validate_args=False),
        binary_precision_recall_curve(*given, validate_args=False),
        float(binary_auroc(*given, validate_args=False)),
        float(binary_average_precision(*given, validate_args=False)),
    )


def _enlarge(roc: Axes, recall: Axes, rankings: Sequence[_Ranking]) -> None:
    """Show the corner where all curves are, with a margin."""
    # Where nearly all samples of the class are found, and what is found without a false one.
    curves = [(*each.roc[:2], *each.precision_recall[:2]) for each in rankings]
    rate = max(float(false[(true >= _NEARLY_ALL).int().argmax()]) for false, true, _, _ in curves)
    pure = min(float(true[false == 0.0].max()) for false, true, _, _ in curves)
    precise = min(float(precision[found >= _NEARLY_ALL].max()) for _, _, precision, found in curves)
    for ax, left, right, bottom in (
        (roc, 0.0, min(1.0, 1.5 * rate), max(0.0, 1.3 * pure - 0.3)),
        (recall, max(0.0, 1.5 * pure - 0.5), 1.0, max(0.0, 1.5 * precise - 0.5)),
    ):
        small = right - left < 0.5 and bottom > 0.5
        width, height = (max(right - left, 0.01), max(1.0 - bottom, 0.01)) if small else (1.0, 1.0)
        start = 0.0 if ax is roc else 1.0 - width
        ax.set_xlim(start - 0.03 * width, start + 1.03 * width)
        ax.set_ylim(1.0 - 1.03 * height, 1.0 + 0.03 * height)
        ax.set_title("enlarged: the corner of the best" if small else "")
        ax.ticklabel_format(useOffset=False)
