"""Progress on the screen: a line an epoch, and between them a bar where somebody is watching."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm


class EpochProgress(ProgressBar):
    """One line an epoch with its metrics and seconds; on a terminal also a bar.

    The bar is redrawn at most ``refresh_hz`` times a second, however fast the steps are.

    Args:
        refresh_hz: the most redraws a second.
    """

    def __init__(self, refresh_hz: float = 5.0) -> None:
        super().__init__()
        self.refresh_hz = refresh_hz
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._epoch: int | None = None
        self._started = 0.0
        self._validated = False

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)
        self._begin_epoch(trainer)

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if self._epoch is None:  # a run that was resumed inside an epoch does not start it again
            self._begin_epoch(trainer)

    def _begin_epoch(self, trainer: Trainer) -> None:
        if not self._enabled or not trainer.is_global_zero:
            return
        self._epoch, self._started, self._validated = trainer.current_epoch, time.perf_counter(), False
        if sys.stderr.isatty():
            total = self.total_train_batches
            self._bar = tqdm(
                desc=self._title(trainer, self._epoch),
                total=int(total) if total != float("inf") else None,
                unit="batch",
                leave=False,
                mininterval=1.0 / self.refresh_hz,
                dynamic_ncols=True,
            )

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    # The metrics of an epoch are complete only when the next one, or the end, comes.
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_epoch(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_bar()
        self._epoch = None

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _finish_epoch(self, trainer: Trainer) -> None:
        self._close_bar()
        if self._epoch is None:
            return
        shown = {
            name.removesuffix("_epoch"): float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if name == "train/loss_epoch" or (name.startswith("val/") and self._validated)
        }
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        print(
            f"{self._title(trainer, self._epoch)}  {figures}  {time.perf_counter() - self._started:.1f} s", flush=True
        )
        self._epoch = None

    @staticmethod
    def _title(trainer: Trainer, epoch: int) -> str:
        last = trainer.max_epochs
        return f"epoch {epoch + 1}" + (f"/{last}" if last is not None and last > 0 else "")
