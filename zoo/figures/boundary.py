"""What a classifier of two features makes of the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.style import COLORS, MARKERS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

_POINTS = 1000
_MARGIN = 0.1  # of the width and the height, that a label needs around its middle


def decision_boundary(
    title: str,
    x: Floats,
    y: Floats,
    probabilities: Floats,
    features: Floats,
    labels: Ints,
    predicted: Ints,
    threshold: float = 0.5,
) -> Figure:
    """The probabilities over the plane as shades, the boundary as a line, and the samples by class.

    Classes differ by the shape of their markers, misclassified samples have a black edge. Of more than 1,000
    samples the first are shown; the accuracy is that of all.

    Args:
        title: of the figure.
        x: the columns of the grid, ascending, ``(columns,)``.
        y: its rows, ascending, ``(rows,)``.
        probabilities: on the grid, of class 1, ``(rows, columns)``, or of each class, ``(rows, columns, classes)``.
        features: of the samples, ``(samples, 2)``.
        labels: their classes, ``(samples,)``.
        predicted: the classes that the model predicts, ``(samples,)``.
        threshold: the probability above which class 1 is predicted, where there are two classes.
    """
    with style():
        figure = new_figure(title, height=5.4)
        axes = figure.add_subplot()
        num_classes = 2
        if probabilities.ndim == 2:
            _shade_two(axes, x, y, probabilities, threshold, features[:_POINTS])
        else:
            num_classes = probabilities.shape[2]
            _shade_several(axes, x, y, probabilities)
        _scatter(axes, features[:_POINTS], labels[:_POINTS], predicted[:_POINTS])
        if num_classes > 2:
            _name_regions(axes, features, labels)
        axes.set(xlabel="feature 1", ylabel="feature 2", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        right = int((labels == predicted).sum())
        shown = "" if len(labels) <= _POINTS else f", {_POINTS:,} of them shown"
        axes.set_title(f"accuracy {_percent(right, len(labels))} of {len(labels):,} test samples{shown}")
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def _percent(right: int, total: int) -> str:
    """A share that is 100 % only if it is all."""
    return "100 %" if right == total else f"{min(99.99, 100.0 * right / total):.2f} %"


def _shade_two(axes: Axes, x: Floats, y: Floats, probabilities: Floats, threshold: float, features: Floats) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    ends: list[Any] = [_pale(0, 0.7), "white", _pale(1, 0.7)]
    colors = LinearSegmentedColormap.from_list("classes", ends)
    shades = axes.pcolormesh(x, y, probabilities, cmap=colors, vmin=0.0, vmax=1.0, shading="gouraud", rasterized=True)
    bar = axes.figure.colorbar(shades, ax=axes, label="probability of class 1")
    bar.ax.axhline(threshold, color="black", linewidth=1.8)
    if probabilities.min() < threshold < probabilities.max():
        line = axes.contour(x, y, probabilities, levels=[threshold], colors="black", linewidths=1.8)
        vertices = np.concatenate([path.vertices for path in line.get_paths()])
        where = [_free_place(vertices, features, (x[0], y[0]), (x[-1], y[-1]))]
        # Not inline: a gap in the line would look like one in the boundary.
        for text in axes.clabel(line, fmt=f"p = {threshold:g}", fontsize=9, inline=False, manual=where, zorder=6):
            text.set_bbox({"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"})


def _shade_several(axes: Axes, x: Floats, y: Floats, probabilities: Floats) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    num_classes = probabilities.shape[2]
    best, most = probabilities.argmax(axis=2), probabilities.max(axis=2)
    surety = np.clip((most * num_classes - 1.0) / max(1, num_classes - 1), 0.0, 1.0)[:, :, None]
    pale = np.array([_pale(index, 0.7) for index in range(num_classes)])[best]
    width, height = (x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1)
    extent = (x[0] - width / 2, x[-1] + width / 2, y[0] - height / 2, y[-1] + height / 2)
    axes.imshow(1.0 - surety * (1.0 - pale), origin="lower", extent=extent, aspect="auto")
    for index in range(num_classes):
        lead = probabilities[:, :, index] - np.delete(probabilities, index, axis=2).max(axis=2)
        if lead.min() < 0.0 < lead.max():
            axes.contour(x, y, lead, levels=[0.0], colors="black", linewidths=1.2)
    greys = ScalarMappable(Normalize(1.0 / num_classes, 1.0), "Greys")
    greys.set_clim(1.0 / num_classes, 1.0 + 0.8 * (1.0 - 1.0 / num_classes))  # no darker than the shades are
    bar = axes.figure.colorbar(greys, ax=axes, label="probability of the predicted class (depth of the shade)")
    bar.ax.set_ylim(1.0 / num_classes, 1.0)


def _scatter(axes: Axes, features: Floats, labels: Ints, predicted: Ints) -> None:
    wrong = labels != predicted
    for label in np.unique(labels).tolist():
        chosen = labels == label
        marker: dict[str, Any] = {"marker": _marker(label), "color": COLORS[label % len(COLORS)], "s": 24}
        right = features[chosen & ~wrong]
        axes.scatter(
            right[:, 0],
            right[:, 1],
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
            label=f"class {label}",
            **marker,
        )
        missed = features[chosen & wrong]
        axes.scatter(missed[:, 0], missed[:, 1], edgecolors="black", linewidths=1.3, zorder=4, **marker)
    if wrong.any():
        axes.scatter([], [], s=30, facecolors="none", edgecolors="black", linewidths=1.3, label="misclassified")


def _name_regions(axes: Axes, features: Floats, labels: Ints) -> None:
    for label in np.unique(labels).tolist():
        across, up = np.median(features[labels == label], axis=0).tolist()
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "black", "alpha": 0.9}
        axes.text(across, up, str(label), fontweight="bold", ha="center", va="center", bbox=box, zorder=5)


def _free_place(
    line: Floats, samples: Floats, low: tuple[float, float], high: tuple[float, float]
) -> tuple[float, float]:
    """The point of a line that is farthest from all samples; at the border, which cuts text off, only if all are."""
    size = np.subtract(high, low)
    candidates, others = (line - low) / size, (samples - low) / size
    distance = np.linalg.norm(candidates[:, None] - others, axis=2).min(axis=1)
    edge = np.minimum(candidates, 1.0 - candidates).min(axis=1)
    across, up = line[np.argmax(np.where(edge >= _MARGIN, distance, edge - _MARGIN))].tolist()
    return across, up


def _marker(label: int) -> str:
    # Classes of the same colour differ in shape.
    return MARKERS[(label + label // len(COLORS)) % len(MARKERS)]


def _pale(index: int, depth: float) -> tuple[float, float, float]:
    """A class's colour, mixed with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1.0 - depth * (1.0 - part) for part in to_rgb(COLORS[index % len(COLORS)]))
    return red, green, blue
