"""The learning curves of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.trainer.states import TrainerFn

from zoo.callbacks.figure import FigureCallback
from zoo.figures.learning_curves import Curve, learning_curves
from zoo.tracking import MetricsCSV

_KEY = "learning_curves"
_MOST_POINTS = 1000


class LearningCurves(FigureCallback):
    """Draws ``learning_curves.png`` at the end of a fit: all that was logged in training and validation, by step.

    It hears what the loggers hear, and costs a step nothing; a trainer without a logger has one that keeps nothing but
    this, while it fits. Of a metric that is logged more than a thousand times every second value is left out, again and
    again. The history is in the checkpoints, so that a resumed run draws all of it.

    Args:
        title: see :class:`FigureCallback`.
        directory: see there.
    """

    def __init__(self, title: str | None = None, directory: Any = None) -> None:
        super().__init__(title, directory)
        self.history = MetricHistory()
        self._loaded = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING and isinstance(saved := checkpoint.get(_KEY), dict):
            self.history.load(saved)
            self._loaded = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._loaded and trainer.global_step == 0:
            self.history = MetricHistory()
            for logger in trainer.loggers:  # a resumed run that did not draw before has its history there
                for row in logger.earlier_rows() if isinstance(logger, MetricsCSV) else ():
                    self.history.add(row, int(row.get("step", 0)))
        self._loaded = False
        self._stop_listening(trainer)
        trainer.loggers = [*trainer.loggers, _Listener(self.history, str(trainer.default_root_dir))]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Not a copy: what is logged of this step before the file is written belongs to it, and is not logged again.
        checkpoint[_KEY] = self.history.series

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_listening(trainer)
        if trainer.is_global_zero:
            figure = learning_curves(self.history.curves(), self.title_of(trainer, "learning curves"))
            self.publish(trainer, "learning_curves", figure)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop_listening(trainer)

    def _stop_listening(self, trainer: Trainer) -> None:
        trainer.loggers = [
            logger
            for logger in trainer.loggers
            if not (isinstance(logger, _Listener) and logger.history is self.history)
        ]


class MetricHistory:
    """What metrics were at which steps; no more than a thousand values of each."""

    def __init__(self) -> None:
        #: By name ``{"steps": [...], "values": [...], "every": n, "count": m}``: each n-th of m values.
        self.series: dict[str, dict[str, Any]] = {}

    def add(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep the numbers among some metrics, but for those of tests and the count of epochs."""
        for name, value in metrics.items():
            if name in ("epoch", "step") or name.startswith("test") or not isinstance(value, int | float):
                continue
            kept = self.series.setdefault(name, {"steps": [], "values": [], "every": 1, "count": 0})
            if kept["count"] % kept["every"] == 0:
                kept["steps"].append(int(step))
                kept["values"].append(float(value))
            kept["count"] += 1
            if len(kept["steps"]) > _MOST_POINTS:
                del kept["steps"][1::2], kept["values"][1::2]
                kept["every"] *= 2

    def load(self, series: dict[str, dict[str, Any]]) -> None:
        """Take what :attr:`series` was."""
        self.series = {
            name: {key: list(value) if isinstance(value, list) else int(value) for key, value in kept.items()}
            for name, kept in series.items()
        }

    def curves(self) -> dict[str, Curve]:
        """What there is to draw."""
        return {name: Curve(kept["steps"], kept["values"]) for name, kept in self.series.items()}


class _Listener(DummyLogger):
    """Hears what is logged; whatever a module asks of it as of any logger is answered with nothing."""

    def __init__(self, history: MetricHistory, save_dir: str) -> None:
        super().__init__()
        self.history = history
        self._save_dir = save_dir

    @property
    def save_dir(self) -> str:
        """Where a trainer without a logger writes."""
        return self._save_dir

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.history.add(metrics, step or 0)
