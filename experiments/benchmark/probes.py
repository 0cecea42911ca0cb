"""Callbacks that tell a process outside where a run is: ``--trainer.callbacks+=experiments.benchmark.probes.StepTime``.

They come with the run that they measure, so they import nothing that it does not.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

FIRST_STEP = "benchmark: the first step"
STEP_TIME = "benchmark: steps "


class FirstStep(Callback):
    """Prints :data:`FIRST_STEP` where the first training step begins, and ends the process."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        print(f"\n{FIRST_STEP}", flush=True)
        os._exit(0)  # nothing of what a run does at its end belongs to its start


class StepTime(Callback):
    """Prints :data:`STEP_TIME` and, as JSON, how many steps of the first epoch were timed, and their seconds in all.

    Validation is not among them.

    Args:
        skip: steps at the beginning that are not counted, in which kernels are chosen and memory is claimed.
    """

    def __init__(self, skip: int = 20) -> None:
        self.skip = skip
        self._started = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch > 0 or not trainer.is_global_zero:
            return
        done = batch_idx + 1
        if done == self.skip:
            self._started = _now(pl_module.device)
        elif done == trainer.num_training_batches and done > self.skip:
            seconds = _now(pl_module.device) - self._started
            print(f"\n{STEP_TIME}{json.dumps({'steps': done - self.skip, 'seconds': seconds})}", flush=True)


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
