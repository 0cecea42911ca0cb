"""Random draws that do not depend on how a run came to its step."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeeding(Callback):
    """Makes every random draw of a training step (dropout, for one) a function of (seed, batch, rank).

    A resumed run then draws what the uninterrupted one would have drawn. With several ranks each draws its own.

    Args:
        seed: ``None`` takes that of ``seed_everything``, else 0.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Batches rather than optimizer steps: with accumulated gradients there are several to a step.
        batches = trainer.fit_loop.total_batch_idx
        text = f"{self.seed},{batches},{trainer.global_rank}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
        # torch.manual_seed does this and 200 microseconds' worth of looking for other devices.
        torch.default_generator.manual_seed(seed)
        device = pl_module.device
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
