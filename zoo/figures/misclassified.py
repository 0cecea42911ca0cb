"""The images that a classifier is most sure of, and wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.figures.style import new_figure, short, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Images = npt.NDArray[Any]

_COLUMNS = 8
_INCHES = 1.2  # of a column
_NARROWEST = 28  # pixels of an image beside each other, so that there is room below it
_CAPTION = 0.42  # of an image's height: three lines


def worst_images(
    images: Images,
    truths: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    title: str,
    remark: str = "",
) -> Figure:
    """Misclassified images in the given order, each with its true class, the predicted one, and how sure it was.

    Args:
        images: ``(images, height, width)``, or ``(images, channels, height, width)``; see :func:`as_pictures`.
        truths: the true class of each.
        predictions: the predicted class of each.
        confidences: the predicted probability of the predicted class, of each.
        title: of the figure.
        remark: below the title, such as how many there are beside these.
    """
    with style():
        if not len(images):
            figure = new_figure(title, 6.4, 2.0)
            figure.text(0.5, 0.4, remark or "no sample is misclassified", ha="center", va="center")
            return figure
        pictures = as_pictures(images)
        enlarged = math.ceil(_NARROWEST / pictures.shape[2])
        pictures = pictures.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
        rows = math.ceil(len(pictures) / _COLUMNS)
        columns = min(_COLUMNS, len(pictures))
        height, width = pictures.shape[1:3]
        # One picture of all: an axes for each would take seconds.
        cell_height, cell_width = height + round(_CAPTION * width), width + max(1, width // 14)
        size = _INCHES * columns
        figure = new_figure(title, max(size, 5.0), 0.8 + size * (rows * cell_height) / (columns * cell_width))
        ax = figure.subplots()
        sheet = np.ones((rows * cell_height, columns * cell_width, *pictures.shape[3:]))
        for index, picture in enumerate(pictures):
            top, left = index // columns * cell_height, index % columns * cell_width
            sheet[top : top + height, left : left + width] = picture
            truth, guess = short(truths[index]), short(predictions[index])
            ax.text(
                left + width / 2 - 0.5,
                top + height + 0.02 * width,
                f"true {truth}\nread {guess}\n{100 * confidences[index]:.1f} % sure",
                horizontalalignment="center",
                verticalalignment="top",
                fontsize=8,
                linespacing=1.05,
            )
        ax.imshow(sheet, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        ax.axis("off")
        if remark:
            ax.set_title(remark)
        return figure


def as_pictures(images: Images) -> npt.NDArray[np.float64]:
    """Images as they are shown: each from its darkest value, black, to its brightest, white.

    Args:
        images: ``(images, height, width)``; or ``(images, channels, height, width)``, where three channels are red,
            green and blue, and of any other number the mean is shown.

    Returns:
        ``(images, height, width)``, or ``(images, height, width, 3)``, in [0, 1].

    Raises:
        ValueError: another shape.
    """
    pictures = np.asarray(images, dtype=np.float64)
    if pictures.ndim == 4:
        pictures = pictures.transpose(0, 2, 3, 1) if pictures.shape[1] == 3 else pictures.mean(axis=1)
    if pictures.ndim not in (3, 4) or 0 in pictures.shape[1:]:
        raise ValueError(f"images must be (n, height, width) or (n, channels, height, width), got {images.shape}")
    axes = tuple(range(1, pictures.ndim))
    lowest, highest = pictures.min(axis=axes, keepdims=True), pictures.max(axis=axes, keepdims=True)
    shown: npt.NDArray[np.float64] = (pictures - lowest) / np.where(highest > lowest, highest - lowest, 1.0)
    return shown
