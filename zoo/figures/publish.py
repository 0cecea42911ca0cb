"""Where a figure goes: a PNG file, and every logger that takes images."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from zoo.checkpointing import write_whole
from zoo.figures.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMPRESSION = 4  # nearly as small as at 6, the usual one, and faster


def publish(figure: Figure, name: str, directory: Path, loggers: Iterable[Logger], step: int) -> None:
    """Write ``<directory>/<name>.png`` in one piece, and log the same picture as ``figures/<name>``.

    Args:
        figure: what to show.
        name: of the file, without its ending, and of the image.
        directory: made if there is none.
        loggers: those that take no images are passed over.
        step: the optimizer step that the images belong to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.png"
    write_whole(as_png(figure), file)
    for logger in loggers:
        log_image(logger, f"figures/{name}", file, step)


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file; a tenth faster than its own ``savefig``, which draws twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of a name in another script: drawn as boxes
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture = Image.fromarray(pixels).convert("RGB")
    picture.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def log_image(logger: Logger, key: str, file: Path, step: int) -> None:
    """Send a picture to one logger, if it takes any."""
    if isinstance(logger, WandbLogger):
        logger.log_image(key, [str(file)], step=step)
    elif isinstance(logger, TensorBoardLogger):
        from PIL import Image

        logger.experiment.add_image(key, np.asarray(Image.open(file).convert("RGB")), step, dataformats="HWC")


def log_table(loggers: Iterable[Logger], key: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
    """Send a table to the loggers that take any; an array in it is an image of values in [0, 1].

    Args:
        loggers: those of W&B take tables.
        key: of the table.
        columns: names of the columns.
        rows: as many values each.
        step: the optimizer step that the table belongs to.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            shown = [
                [wandb.Image(_bytes(cell)) if isinstance(cell, np.ndarray) else cell for cell in row] for row in rows
            ]
            logger.log_table(key, columns, shown, step=step)


def _bytes(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.rint(255 * picture).astype(np.uint8)
