"""What a tracker and a checkpoint should know of a run beyond its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch.optim import Optimizer

from zoo.optim import optimizer_settings
from zoo.tracking import MetricsCSV, ResilientWandbLogger
from zoo.wandb_models import summarize_layers


class RunRecord(Callback):
    """Sends the settings of a run to its loggers, and keeps the trackers' place in the checkpoints.

    Sent are ``facts``, the datamodule's arguments and the data really used, and each optimizer's class and values as
    they are when training begins: not what somebody asked for, but what the live optimizer holds. In a checkpoint
    go the id of the W&B run and the number of rows in ``metrics.csv``, so that a resumed run can go on with both.
    W&B also gets the layers of the model with their parameters, as ``model_summary``.

    Args:
        facts: plain values to send along, such as ``{"experiment": "mnist_cnn"}``.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        self.facts = dict(facts or {})
        self.wandb_run_id: str | None = None
        self.metric_rows: int | None = None
        self._sent = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sent = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Callbacks hear of the start of training before the module does, which may still change its optimizer.
        if not self._sent:
            self._sent = True
            self._send(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that is resumed at its end takes no step.
        if not self._sent:
            self._send(trainer, pl_module)

    def _send(self, trainer: Trainer, pl_module: LightningModule) -> None:
        settings = dict(self.facts)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent from its class
        if data is not None:
            settings["data"] = {"class": type(data).__name__, **data.hparams}
            if hasattr(data, "dataset_name"):
                settings["dataset"] = data.dataset_name
        optimizers = [describe_optimizer(optimizer) for optimizer in trainer.optimizers]
        settings["optimizer"] = optimizers[0] if len(optimizers) == 1 else optimizers
        schedules = [describe_scheduler(config.scheduler) for config in trainer.lr_scheduler_configs]
        settings["scheduler"] = schedules[0] if len(schedules) == 1 else schedules or None
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams({**settings, "model_summary": summarize_layers(pl_module)})
            else:
                logger.log_hyperparams(settings)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                self.wandb_run_id = logger.version
            elif isinstance(logger, MetricsCSV):
                self.metric_rows = logger.rows + _rows_to_come(trainer)
        checkpoint["run_record"] = {"wandb_run_id": self.wandb_run_id, "metric_rows": self.metric_rows}


def _rows_to_come(trainer: Trainer) -> int:
    """Rows that the hook under way will still lead to, and that a run resumed from here will not write again.

    Lightning logs what a step or an epoch gave after the hooks at its end, in which checkpoints are written.
    """
    epoch: Any = trainer.fit_loop.epoch_progress.current
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    if epoch.processed > epoch.completed:
        return 1
    interval = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
    return int(batch.processed > batch.completed and interval > 0 and trainer.global_step % interval == 0)


def describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Class and values of an optimizer.

    Values that all parameter groups share stand once; those that differ as a list, one a group. Where a schedule
    moves the rate, ``lr`` is the one it works from.
    """
    groups = optimizer_settings(optimizer)
    description: dict[str, Any] = {"class": _class_name(optimizer)}
    for key in groups[0]:
        plain = [list(value) if isinstance(value := group.get(key), tuple) else value for group in groups]
        description[key] = plain[0] if all(value == plain[0] for value in plain) else plain
    return description


def describe_scheduler(scheduler: object) -> dict[str, Any]:
    """Class and plain values of a learning-rate schedule."""
    values = {
        name: value
        for name, value in vars(scheduler).items()
        if isinstance(value, bool | int | float | str) and not name.startswith("_") and name != "last_epoch"
    }
    return {"class": _class_name(scheduler), **values}


def _class_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
