"""What a regression has fitted, and what it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.style import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.floating[Any]]

_POINTS = 2000


def regression_fit(
    title: str,
    feature: Floats,
    targets: Floats,
    predicted: Floats,
    curve: tuple[Floats, Floats],
    true_values: Floats | None = None,
    noise_variance: float | None = None,
) -> Figure:
    """The fitted curve through the samples of one feature, the true function, and the residuals below.

    Of more than 2,000 samples the first are shown; the mean squared error is that of all.

    Args:
        title: of the figure.
        feature: of the samples, ``(samples,)``.
        targets: likewise.
        predicted: the model's values of the samples, likewise.
        curve: places in ascending order and the model's values there, ``(places,)`` each.
        true_values: those of the true function at the same places, if it is known.
        noise_variance: the least mean squared error that is possible, if it is known.
    """
    with style():
        figure = new_figure(title, width=6.8, height=6.0)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        above.scatter(feature[:_POINTS], targets[:_POINTS], label="test samples", **_dots(len(feature)))
        above.plot(*curve, color=COLORS[1], linewidth=2.5, label="fitted")
        if true_values is not None:
            above.plot(
                curve[0], true_values, color="black", linestyle=(0, (4, 3)), linewidth=1.5, label="true function"
            )
        above.set(ylabel="target", title=_error(targets, predicted, noise_variance))
        _residuals(below, feature, targets - predicted)
        below.set(xlabel="feature", ylabel="residual\n(target - fitted)")
        figure.align_ylabels()
        _legend(figure)
    return figure


def predicted_against_true(
    title: str, targets: Floats, predicted: Floats, noise_variance: float | None = None
) -> Figure:
    """The predicted values against the true ones, and the residuals against the predicted ones.

    Of more than 2,000 values the first are shown; the mean squared error is that of all.

    Args:
        title: of the figure.
        targets: ``(values,)``.
        predicted: likewise.
        noise_variance: the least mean squared error that is possible, if it is known.
    """
    with style():
        figure = new_figure(title, width=9.6, height=5.0)
        left, right = figure.subplots(1, 2)
        ends = _ends(np.concatenate([targets, predicted]))
        left.scatter(targets[:_POINTS], predicted[:_POINTS], label="test samples", **_dots(len(targets)))
        left.plot(ends, ends, color="black", linestyle="--", linewidth=1.5, label="predicted = true")
        left.set(xlabel="true target", ylabel="predicted target", xlim=ends, ylim=ends, aspect="equal")
        left.set_title(_error(targets, predicted, noise_variance))
        _residuals(right, predicted, targets - predicted)
        right.set(xlabel="predicted target", ylabel="residual (true - predicted)", title="residuals")
        _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    legend = figure.legend(loc="outside lower center", ncols=4, markerscale=2.0)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def _residuals(axes: Axes, at: Floats, residuals: Floats) -> None:
    axes.scatter(at[:_POINTS], residuals[:_POINTS], **_dots(len(at)))
    axes.axhline(0.0, color="black", linewidth=1.0)
    spread = float(np.sqrt(np.mean(np.square(residuals))))
    for index, sign in enumerate((1.0, -1.0)):
        label = None if index else "± RMSE"
        axes.axhline(sign * spread, color=COLORS[3], linestyle=":", linewidth=1.5, label=label)
    bound = max(1.1 * float(np.abs(residuals[:_POINTS]).max()), 1.5 * spread)
    if bound > 0.0:
        axes.set_ylim(-bound, bound)


def _error(targets: Floats, predicted: Floats, noise_variance: float | None) -> str:
    count = len(targets)
    told = (
        f"mean squared error {np.mean(np.square(targets - predicted)):.4g} of {count:,} test sample{'s'[: count > 1]}"
    )
    return told if noise_variance is None else f"{told}\n(variance of the noise: {noise_variance:.4g})"


def _dots(count: int) -> dict[str, Any]:
    """Smaller and fainter the more there are."""
    few = count <= 200
    return {"s": 18 if few else 7, "color": COLORS[0], "alpha": 0.8 if few else 0.35, "linewidths": 0}


def _ends(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or max(1.0, abs(low))
    return low - margin, high + margin
