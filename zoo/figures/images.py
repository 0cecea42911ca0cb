"""Images side by side: samples, filters, weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.style import new_figure, style
from zoo.figures.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.floating[Any]]

_TILE = 0.85  # inches of a tile's height
_WIDEST = 10.0  # inches of a figure
_SIGNED = ("#08306B", "#3A75B5", "#A3A3A3", "#F2C14E", "#FFF7C2")  # of rising lightness, grey in the middle
_BAR = 1.5  # inches of a colour bar and its label


def sample_grid(title: str, images: Sequence[Floats], names: Sequence[str], unit: str = "pixel value") -> Figure:
    """Images in rows, each with what it shows above it.

    Images of one channel are shown in grey, from the lowest value of all to the highest; of three in colour, scaled by
    the same two; of any other number as the mean over the channels.

    Args:
        title: of the figure.
        images: each ``(channels, height, width)``, of any size.
        names: one for each image.
        unit: what the values are.
    """
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    is_color = all(image.shape[0] == 3 for image in images)
    with style():
        figure, places = _grid(title, images, 0.25)
        for axes, image, name in zip(places, images, names, strict=True):
            if is_color:
                shown = axes.imshow((np.moveaxis(image, 0, 2) - low) / ((high - low) or 1.0), vmin=low, vmax=high)
            else:
                shown = axes.imshow(image.mean(axis=0), cmap="gray", vmin=low, vmax=high)
            axes.set_title(printable(name), fontsize=9, pad=3, parse_math=False)
        if not is_color:
            figure.colorbar(shown, ax=places, label=unit, shrink=0.8, aspect=30)
    return figure


def weight_images(title: str, weights: Floats, names: Sequence[str] | None = None, subtitle: str = "") -> Figure:
    """Weights as images: negative ones dark and blue, zero grey, positive ones light and yellow.

    The lightness alone says how large a weight is and of which sign, so that a print without colours does, too.

    Args:
        title: of the figure.
        weights: ``(images, height, width)``; or ``(images, 3, height, width)`` of three colours, shown in these, grey
            where a weight is zero.
        names: one for each image.
        subtitle: what else is to be said.
    """
    bound = float(np.abs(weights).max()) or 1.0
    scale = f"grey: 0, full colour: ± {bound:.3g}" if weights.ndim == 4 else ""
    with style():
        told = "; ".join(filter(None, (subtitle, scale)))
        figure, places = _grid(title, list(weights), 0.25 if names else 0.05, told)
        for index, axes in enumerate(places):
            if weights.ndim == 4:
                axes.imshow(np.moveaxis(0.5 + 0.5 * weights[index] / bound, 0, 2), vmin=-bound, vmax=bound)
            else:
                shown = axes.imshow(weights[index], cmap=_signed(), vmin=-bound, vmax=bound)
            if names:
                axes.set_title(names[index], fontsize=9, pad=3)
        if weights.ndim == 3:
            figure.colorbar(shown, ax=places, label="weight", shrink=0.8, aspect=30)
    return figure


@cache
def _signed() -> Colormap:
    """For values on both sides of zero: the hue tells the sides apart, the lightness rises from end to end."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", _SIGNED)


def _grid(title: str, images: Sequence[Floats], head: float, subtitle: str = "") -> tuple[Figure, list[Axes]]:
    """A figure with a place for each image, and no ticks."""
    ratio = max(image.shape[-1] / image.shape[-2] for image in images)
    tile = max(_TILE * ratio, 0.5)
    columns = _columns(len(images), ratio, int((_WIDEST - _BAR) // tile))
    rows = math.ceil(len(images) / columns)
    width = min(_WIDEST, max(5.0, columns * tile + _BAR))
    figure = new_figure(title, width=width, height=max(2.4, rows * (tile / ratio + head) + 0.8))
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    if subtitle:
        figure.supxlabel(subtitle, fontsize=9)
    places: list[Axes] = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in places:
        axes.set(xticks=[], yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
    for axes in places[len(images) :]:
        axes.set_axis_off()
    return figure, places[: len(images)]


def _columns(count: int, ratio: float, fits: int) -> int:
    """Columns that make a grid somewhat wider than high, with few places left empty."""
    wanted = round(math.sqrt(1.5 * count / ratio))
    choices = range(max(1, wanted - 2), wanted + 3)
    return min(fits, min(choices, key=lambda columns: (-count % columns, abs(columns - wanted)))) or 1
