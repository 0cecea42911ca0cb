"""Gradient descent by hand."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from zoo.tasks.base import Batch
from zoo.tasks.regression import Regression


class GradientDescentRegression(Regression):
    """Regression without an optimizer: each step moves the parameters against their gradients itself.

    With the same batches the weights are those of ``torch.optim.SGD(parameters, lr=lr)``, to the bit.

    Args:
        network: maps inputs to values of the targets' shape; any module.
        lr: the learning rate, greater than 0.
        loss: see :class:`Regression`.
        huber_delta: see there.

    Raises:
        ValueError: a value out of range, or an unknown loss.
        MisconfigurationException: in a run, for a precision with a gradient scaler.
        TargetError: see :class:`Regression`.
    """

    def __init__(self, network: nn.Module, lr: float = 0.1, loss: str = "mse", huber_delta: float = 1.0) -> None:
        if not 0.0 < lr < float("inf"):
            raise ValueError(f"lr must be a positive number, got {lr!r}")
        super().__init__(network=network, loss=loss, huber_delta=huber_delta)
        self.automatic_optimization = False
        self.lr = lr

    def configure_optimizers(self) -> Any:
        if self.trainer.scaler is not None:
            raise MisconfigurationException(
                f"precision {self.trainer.precision} scales the loss for an optimizer that takes the scale out again, "
                "and here is none: use 32-true or bf16-mixed"
            )
        # So that an optimizer's run is not gone on with without its state.
        self._optimizer_classes = {"optimizer": None}
        self._check_same_classes()
        return []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.grad is not None:
                    # parameter -= lr * parameter.grad, rounded once, as torch.optim rounds it.
                    parameter.sub_(parameter.grad, alpha=self.lr)
                    parameter.grad = None
        # Lightning counts the steps of optimizers, and here is none.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()
        return loss
