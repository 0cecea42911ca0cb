"""What callbacks that draw share: where a figure goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, Trainer

from zoo.figures.publish import publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureCallback(Callback):
    """Draws behind a fit or a test, never inside a step; a PNG, and an image in every logger that takes images.

    Args:
        title: begins each figure's title, such as the experiment's name; ``None`` is the class of the module.
        directory: of the PNG files; ``None`` is ``figures`` in the trainer's ``log_dir`` or ``default_root_dir``.
    """

    def __init__(self, title: str | None = None, directory: str | Path | None = None) -> None:
        self.title = title
        self.directory = directory

    def publish(self, trainer: Trainer, name: str, figure: Figure) -> None:
        """Save a figure as ``<directory>/<name>.png``, and send it to the trainer's loggers as ``figures/<name>``."""
        root = Path(trainer.log_dir or trainer.default_root_dir) / "figures"
        publish(figure, name, Path(self.directory or root), trainer.loggers, trainer.global_step)

    def title_of(self, trainer: Trainer, what: str) -> str:
        """A figure's title: whose it is, and what it shows."""
        return f"{self.title or type(trainer.lightning_module).__name__}: {what}"
