"""What callbacks that draw share: where a figure goes, what it cost, and that a run survives it."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from zoo.figures.publish import publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureWarning(UserWarning):
    """A figure could not be drawn or kept; the run goes on without it."""


class FigureCallback(Callback):
    """Draws behind a fit or a test, never inside a step; a PNG, and an image in every logger that takes images.

    Whatever fails in a hook of a subclass (``on_...``) is a :class:`FigureWarning`: a picture is never worth a run.
    Only the first process draws, so what several have to do together belongs in front of anything that can fail.

    Args:
        title: begins each figure's title, such as the experiment's name; ``None`` is the class of the module.
        directory: of the PNG files; ``None`` is ``figures`` where the first logger writes, or in ``default_root_dir``.
    """

    def __init__(self, title: str | None = None, directory: str | Path | None = None) -> None:
        self.title = title
        self.directory = directory
        #: What the hooks have taken, in all.
        self.seconds = 0.0
        #: What was written.
        self.files: list[Path] = []
        self._inside = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, hook in list(vars(cls).items()):
            if name.startswith("on_") and callable(hook):
                setattr(cls, name, _harmless(hook))

    def publish(self, trainer: Trainer, name: str, figure: Figure) -> None:
        """Save a figure as ``<directory>/<name>.png``, and send it to the trainer's loggers as ``figures/<name>``.

        Not in a trial run, ``Trainer(fast_dev_run=True)``.
        """
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning
            return
        file = Path(self.directory or _root(trainer) / "figures") / f"{name}.png"
        publish(figure, name, file.parent, trainer.loggers, trainer.global_step)
        if file not in self.files:
            self.files.append(file)

    def title_of(self, trainer: Trainer, what: str) -> str:
        """A figure's title: whose it is, and what it shows."""
        return f"{self.title or type(trainer.lightning_module).__name__}: {what}"


def _root(trainer: Trainer) -> Path:
    """Where the first logger writes; unlike ``trainer.log_dir`` it can be asked by one process alone."""
    for logger in trainer.loggers[:1]:
        if directory := getattr(logger, "log_dir", None) or logger.save_dir:
            return Path(directory)
    return Path(trainer.default_root_dir)


def _harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """The hook, timed, and with a warning instead of an error."""

    @functools.wraps(hook)
    def wrapped(self: FigureCallback, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if self._inside:  # called by a subclass's
            hook(self, trainer, *args, **kwargs)
            return
        started, self._inside = time.perf_counter(), True
        try:
            hook(self, trainer, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # whatever matplotlib, a logger or the disk comes up with
            said = " ".join(str(error).split()) or "no reason given"
            warnings.warn(f"{type(self).__name__} failed ({type(error).__name__}: {said})", FigureWarning, stacklevel=2)
        finally:
            self._inside = False
            self.seconds += time.perf_counter() - started

    return wrapped
