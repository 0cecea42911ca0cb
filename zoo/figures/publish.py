"""Where a figure goes: a PNG file, and every logger that takes images."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from zoo.checkpointing import write_whole
from zoo.figures.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def publish(figure: Figure, name: str, directory: Path, loggers: Iterable[Logger], step: int) -> None:
    """Write ``<directory>/<name>.png`` in one piece, and log the same picture as ``figures/<name>``.

    Args:
        figure: what to show.
        name: of the file, without its ending, and of the image.
        directory: made if there is none.
        loggers: those that take no images are passed over.
        step: the optimizer step that the images belong to.
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png")
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(buffer.getvalue(), directory / f"{name}.png")
    for logger in loggers:
        log_image(logger, f"figures/{name}", buffer.getvalue(), step)


def log_image(logger: Logger, key: str, png: bytes, step: int) -> None:
    """Send a picture to one logger, if it takes any."""
    from PIL import Image

    if isinstance(logger, WandbLogger):
        logger.log_image(key, [Image.open(io.BytesIO(png))], step=step)
    elif isinstance(logger, TensorBoardLogger):
        import numpy as np

        logger.experiment.add_image(
            key, np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), step, dataformats="HWC"
        )
