"""What a classifier takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoo.figures.style import COLORS, new_figure, plain, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Counts = npt.NDArray[np.int64]

_MOST_COUNTED = 30  # classes, above which no number would be readable
_GAMMA = 0.35  # of the colours: an error in a hundred shall be seen beside the diagonal
_MOST_TICKS = 40


def confusion_matrix(counts: Counts, title: str, class_names: Sequence[str] | None = None) -> Figure:
    """Counts of predicted classes (columns) by true class (rows), coloured by their share of the row.

    Up to 30 classes the counts are written out, but for those of 0 beside the diagonal.

    Args:
        counts: ``(classes, classes)``; a class without samples has a row of 0.
        title: of the figure.
        class_names: by class; ``None`` are their numbers.

    Raises:
        ValueError: counts that are not square, or not as many names.
    """
    from matplotlib.colors import PowerNorm

    names = _names(counts, class_names)
    classes = len(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    size = min(3.6 + 0.36 * classes, 13.0)
    with style():
        figure = new_figure(title, size + 0.8, size)
        ax = figure.subplots()
        # Not by torchmetrics' plot, whose colours are of the counts, and to which NumPy 2 says a warning.
        image = ax.imshow(shares, cmap="Blues", norm=PowerNorm(_GAMMA, 0.0, 1.0))
        if classes <= _MOST_COUNTED:
            fontsize = 10 - 3 * max(0, classes - 10) / (_MOST_COUNTED - 10)
            for row, column in zip(*np.nonzero((counts > 0) | np.eye(classes, dtype=bool)), strict=True):
                dark = shares[row, column] ** _GAMMA > 0.6
                ax.text(
                    column,
                    row,
                    f"{counts[row, column]}",
                    horizontalalignment="center",
                    verticalalignment="center",
                    fontsize=fontsize,
                    color="white" if dark else "black",
                )
        _label(ax, names)
        right, total = int(np.trace(counts)), int(counts.sum())
        share = f" ({100 * (total - right) / total:.2f} %)" if total else ""
        ax.set_title(f"{total - right:,} of {total:,} samples misclassified{share}")
        bar = figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
        bar.ax.set_yticklabels(["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"])
        bar.set_label("share of the true class")
        return figure


def _label(ax: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // _MOST_TICKS)
    long = max(map(len, names)) > 3
    ticks = range(0, len(names), every)
    ax.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90 if long else 0, fontsize=9)
    ax.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=9)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.spines[:].set_visible(False)


def most_confused(counts: Counts, title: str, class_names: Sequence[str] | None = None, limit: int = 12) -> Figure:
    """A bar for each of the most frequent confusions, such as ``4 read as 9``, with its count and share of the class.

    Args:
        counts: ``(classes, classes)``, true classes by predicted ones.
        title: of the figure.
        class_names: by class; ``None`` are their numbers.
        limit: bars at most.

    Raises:
        ValueError: counts that are not square, or not as many names.
    """
    from matplotlib.ticker import MaxNLocator

    names = _names(counts, class_names)
    errors = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, counts.shape), strict=True)]
    pairs = [pair for pair in pairs if errors[pair]]
    with style():
        figure = new_figure(title, 6.4 + 0.05 * max(map(len, names)), 1.3 + 0.3 * max(len(pairs), 3))
        ax = figure.subplots()
        if not pairs:
            ax.axis("off")
            ax.text(0.5, 0.5, f"none of {counts.sum():,} samples is misclassified", ha="center", va="center")
            return figure
        values = [int(errors[pair]) for pair in pairs]
        bars = ax.barh(
            [f"{short(names[row], 24)} read as {short(names[column], 24)}" for row, column in pairs],
            values,
            color=COLORS[0],
            height=0.7,
        )
        shares = [100 * errors[pair] / counts[pair[0]].sum() for pair in pairs]
        ax.bar_label(
            bars, [f"{value:,} ({share:.1f} %)" for value, share in zip(values, shares, strict=True)], padding=3
        )
        ax.invert_yaxis()
        ax.margins(x=0.18)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("samples (share of the true class)")
        return figure


def _names(counts: Counts, class_names: Sequence[str] | None) -> list[str]:
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not len(counts):
        raise ValueError(f"counts must be of shape (classes, classes), got {counts.shape}")
    return class_labels(len(counts), class_names)


def class_labels(num_classes: int, class_names: Sequence[str] | None) -> list[str]:
    """The names of classes, or their numbers.

    Raises:
        ValueError: not as many names as classes.
    """
    if class_names is None:
        return [str(number) for number in range(num_classes)]
    if len(class_names) != num_classes:
        raise ValueError(f"there are {num_classes} classes, but {len(class_names)} class_names")
    return [plain(str(name)) for name in class_names]
