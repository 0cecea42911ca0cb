"""Series with their forecasts, and what a network reads at each step of a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.style import COLORS, new_figure, style
from zoo.figures.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.floating[Any]]

_LABEL_NAMES = {" ": "space"}
_FEW_CHARACTERS = 16
_LEAST = 0.05


def forecasts(
    title: str,
    windows: Floats,
    targets: Floats,
    predicted: Floats,
    true_series: Floats | None = None,
    longest: int | None = None,
) -> Figure:
    """Series: what was seen, what followed, what was forecast, and, if it is known, the series without noise.

    Args:
        title: of the figure.
        windows: ``(series, window)``.
        targets: ``(series, horizon)``.
        predicted: likewise.
        true_series: ``(series, window + horizon)``.
        longest: the last steps of the window that are shown; ``None`` is twice the horizon, at least 30.
    """
    count, window = windows.shape
    horizon = targets.shape[1]
    first = max(0, window - (longest or max(30, 2 * horizon)))
    seen, following = np.arange(first, window), np.arange(window, window + horizon)
    columns = min(2, count)
    rows = math.ceil(count / columns)
    with style():
        figure = new_figure(title, width=5.2 * columns, height=2.1 * rows + 1.2)
        places = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for index, axes in enumerate(places[:count]):
            axes.axvspan(window - 0.5, window + horizon - 0.5, color="0.93", zorder=0)
            if true_series is not None:
                steps = np.arange(first, window + horizon)
                axes.plot(
                    steps,
                    true_series[index, first:],
                    color="black",
                    linestyle="--",
                    linewidth=1.0,
                    label="without noise",
                )
            axes.plot(
                seen, windows[index, first:], color=COLORS[0], marker=".", markersize=3, linewidth=1, label="seen"
            )
            axes.plot(
                following, targets[index], color=COLORS[2], marker="o", markersize=4.5, linewidth=1, label="truth"
            )
            axes.plot(
                following, predicted[index], color=COLORS[1], marker="X", markersize=5.5, linewidth=1, label="forecast"
            )
            error = float(np.sqrt(np.mean(np.square(targets[index] - predicted[index]))))
            axes.set_title(f"test series {index}: root mean squared error {error:.3g}", fontsize=9)
        for axes in places[count:]:
            axes.set_axis_off()
        for axes in places[max(0, count - columns) : count]:
            axes.set_xlabel("step (shaded: to forecast)")
            axes.tick_params(labelbottom=True)
        for axes in places[:count:columns]:
            axes.set_ylabel("value")
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@dataclass(frozen=True)
class ReadLine:
    """An image of a line, and what a network makes of it.

    Args:
        image: ``(height, width)``.
        probabilities: of the blank, which is the first, and each character of the alphabet, ``(steps, labels)``.
        columns: of the image, that a step stands for.
        truth: what the line reads.
    """

    image: Floats
    probabilities: Floats
    columns: float
    truth: str

    @property
    def path(self) -> npt.NDArray[np.intp]:
        """The most probable label of each step, ``(steps,)``."""
        path: npt.NDArray[np.intp] = self.probabilities.argmax(axis=1)
        return path

    @property
    def spelt(self) -> npt.NDArray[np.intp]:
        """The steps at which the path begins a character: it is no blank, and not the label of the step before."""
        path = self.path
        return np.flatnonzero((path != 0) & np.concatenate([[True], path[1:] != path[:-1]])[: len(path)])


def ctc_alignment(title: str, lines: Sequence[ReadLine], alphabet: str) -> Figure:
    """Lines, and below each, step by step, the probability of every character, and the greedy path.

    Of an alphabet of more than 16 only those characters have a row that occur in the truth or come to 5 % at a step.

    Args:
        title: of the figure.
        lines: at least one.
        alphabet: the characters of labels 1, 2, ...
    """
    chosen = [_rows(line, alphabet) for line in lines]
    heights = [part for rows in chosen for part in (1.0, max(1.2, 0.17 * len(rows)))]
    with style():
        figure = new_figure(title, width=8.4, height=sum(heights) + 1.2 + 0.3 * len(lines))
        places = figure.subplots(2 * len(lines), 1, squeeze=False, height_ratios=heights).flatten()
        for index, (line, rows) in enumerate(zip(lines, chosen, strict=True)):
            above, below = places[2 * index], places[2 * index + 1]
            shown = _draw_line(above, below, line, rows, alphabet)
        places[-1].set_xlabel("column of the image")
        figure.colorbar(shown, ax=places, label="probability", shrink=0.6, aspect=40)
        handles = below.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def _rows(line: ReadLine, alphabet: str) -> list[int]:
    """The labels that get a row, the blank first."""
    if len(alphabet) <= _FEW_CHARACTERS:
        return list(range(len(alphabet) + 1))
    reached = np.flatnonzero(line.probabilities.max(axis=0, initial=0.0) >= _LEAST)
    wanted = (label for label, character in enumerate(alphabet, 1) if character in line.truth)
    return sorted({0, *reached.tolist(), *line.path.tolist(), *wanted})


def _draw_line(above: Axes, below: Axes, line: ReadLine, rows: list[int], alphabet: str) -> Any:
    height, width = line.image.shape
    steps = len(line.path)
    end = max(width, steps * line.columns)
    above.imshow(line.image, cmap="gray", extent=(0, width, height, 0), aspect="auto")
    above.set(xlim=(0, end), xticks=[], yticks=[])
    read = "".join(alphabet[label - 1] for label in line.path[line.spelt])
    verdict = "right" if read == line.truth else "wrong"
    above.set_title(
        f"truth “{printable(line.truth)}”, read “{printable(read)}”: {verdict}", loc="left", parse_math=False
    )
    above.spines[["left", "bottom"]].set_visible(False)
    shown = below.imshow(
        line.probabilities[:, rows].T,
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        extent=(0, steps * line.columns, len(rows) - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    names = [
        _LABEL_NAMES.get(alphabet[label - 1], printable(alphabet[label - 1])) if label else "blank" for label in rows
    ]
    below.set_yticks(range(len(rows)), names, fontsize=8, parse_math=False)
    below.set(xlim=(0, end))
    place = np.array([rows.index(label) for label in line.path.tolist()])
    middle = (np.arange(steps) + 0.5) * line.columns
    below.plot(middle, place, color=COLORS[1], linewidth=0.9, marker=".", markersize=4, label="greedy path")
    below.plot(
        middle[line.spelt],
        place[line.spelt],
        linestyle="",
        marker="s",
        markersize=7,
        markerfacecolor="none",
        markeredgecolor="black",
        label="a character begins",
    )
    for step in line.spelt.tolist():
        for axes in (above, below):
            axes.axvline(middle[step], color=COLORS[1], linewidth=0.7, linestyle=":", zorder=1)
    return shown
