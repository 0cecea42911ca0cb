"""How far a classifier's probabilities can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.style import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]


def reliability_diagram(
    probabilities: Array,
    hits: Array,
    title: str,
    num_bins: int = 15,
    xlabel: str = "probability of the predicted class",
    ylabel: str = "share that is right",
) -> Figure:
    """How often what was given a probability came true, in bins of equal width, and how often it was given.

    The expected calibration error is the mean distance of the bars from the diagonal, each bin weighed by its samples
    (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Args:
        probabilities: ``(samples,)`` in [0, 1].
        hits: ``(samples,)`` 1 or ``True`` where it came true, else 0.
        title: of the figure.
        num_bins: bins between 0 and 1.
        xlabel: what the probabilities are of.
        ylabel: what the hits are.

    Raises:
        ValueError: no samples, or not as many hits.
    """
    from matplotlib.ticker import NullFormatter

    if not len(probabilities) or len(probabilities) != len(hits):
        raise ValueError(f"there must be a hit or miss for each probability, got {len(hits)} for {len(probabilities)}")
    count, confidence, accuracy = bins(probabilities, hits, num_bins)
    error = calibration_error(probabilities, hits, num_bins)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    middles, width = (edges[:-1] + edges[1:]) / 2, 1.0 / num_bins
    used = count > 0
    with style():
        figure = new_figure(title, 6.0, 6.2)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.bar(middles[used], accuracy[used], width, color=COLORS[5], edgecolor="black", linewidth=0.6, label=ylabel)
        top.bar(
            middles[used],
            (confidence - accuracy)[used],
            width,
            accuracy[used],
            facecolor="none",
            edgecolor=COLORS[1],
            hatch="///",
            linewidth=0.6,
            label="gap to the mean probability",
        )
        top.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfectly calibrated")
        top.set(ylabel=ylabel, xlim=(0, 1), ylim=(0, 1))
        top.set_title(f"expected calibration error {error:.4f} ({num_bins} bins)")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, columnspacing=1.2)
        bottom.bar(middles, count, width, color=COLORS[0], edgecolor="black", linewidth=0.6)
        bottom.set(xlabel=xlabel, ylabel="samples", ylim=(0.7, max(10, 1.6 * count.max())))
        bottom.set_yscale("log")
        bottom.yaxis.set_minor_formatter(NullFormatter())
        bottom.grid(visible=True, axis="y")
        return figure


def bins(probabilities: Array, hits: Array, num_bins: int) -> tuple[Array, Array, Array]:
    """Samples, mean probability and share of hits of each bin; where a bin is empty the last two are 0.

    Bins hold their lower edges, and the last one 1 as well, as in torchmetrics.
    """
    place = np.searchsorted(np.linspace(0.0, 1.0, num_bins + 1)[1:-1], probabilities, side="right")
    count = np.bincount(place, minlength=num_bins)
    sums = (np.bincount(place, np.asarray(values, dtype=np.float64), num_bins) for values in (probabilities, hits))
    confidence, accuracy = (total / np.maximum(count, 1) for total in sums)
    return count, confidence, accuracy


def calibration_error(probabilities: Array, hits: Array, num_bins: int = 15) -> float:
    """The expected calibration error over bins of equal width."""
    count, confidence, accuracy = bins(probabilities, hits, num_bins)
    return float((count * np.abs(confidence - accuracy)).sum() / count.sum())
