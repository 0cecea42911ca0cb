"""Fits without Lightning's overhead, in anyone's trainer."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from zoo.callbacks.graceful_stop import GracefulStop
from zoo.lean_loop import LeanEpochLoop
from zoo.lean_results import LeanResults
from zoo.shared_memory import SharedMemoryMean, share_gradients


class LeanLoop(Callback):
    """Lets a trainer's fits run in :class:`zoo.lean_loop.LeanEpochLoop`, which does the same in less time.

    On a machine without a GPU it also sets ``PYTORCH_NVML_BASED_CUDA_CHECK=0`` for this process.

    Of two processes on the CPU of one machine that train together under ``DDPStrategy`` the gradients, up to 32 MiB, go
    through memory that they share (:class:`zoo.shared_memory.SharedMemoryMean`), if no communication hook was
    registered before ``on_train_start``.

    Any module gets the same weights, logs and checkpoints as without it. A trainer that somebody has given another
    loop already keeps that.
    """

    def __init__(self) -> None:
        self._means: SharedMemoryMean | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not torch.cuda.is_available():
            # Lightning lets torch look for GPUs by NVIDIA's library, which a machine without them does not have: each
            # step of an Adam would look for it on the disk again, longer than the step itself takes.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        loop = trainer.fit_loop.epoch_loop
        if stage == "fit" and type(loop) is _TrainingEpochLoop:
            lean = LeanEpochLoop(trainer, loop.min_steps, loop.max_steps)
            # Of a trainer that has fitted before, its counts; and where the validation data come from.
            lean.__dict__.update({name: value for name, value in vars(loop).items() if name != "_results"})
            trainer.fit_loop.epoch_loop = loop = lean
        for evaluation in (loop.val_loop, trainer.validate_loop, trainer.test_loop):
            LeanResults.install(evaluation)
        if isinstance(loop, LeanEpochLoop):
            callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
            loop.stops_are_agreed = any(isinstance(callback, GracefulStop) for callback in callbacks)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        strategy = trainer.strategy
        if (
            type(strategy) is DDPStrategy
            and type(strategy.model) is DistributedDataParallel
            and strategy.root_device.type == "cpu"
            and strategy.num_nodes == 1
            and not strategy.model._comm_hooks  # of which torch takes one
            and strategy._model_averager is None
        ):
            from torch.distributed.constants import default_pg_timeout  # which not every build of torch has

            timeout = strategy._timeout or default_pg_timeout
            self._means = share_gradients(strategy.model, timeout.total_seconds())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave()  # the others do not wait

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._leave()

    def _leave(self) -> None:
        means, self._means = self._means, None
        if means is not None:
            means.close()
