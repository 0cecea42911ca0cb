"""The baseline: training as one would write it by hand, with whole-batch indexing and nothing around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 autocast, made once for all steps, or nothing."""
    if precision == "bf16-mixed":
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return nullcontext()


Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PlainData:
    """Features in their own type, targets, and what makes the first of a batch into a network's inputs."""

    features: Tensor
    targets: Tensor
    prepare: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PlainFit:
    """A training loop over tensors in memory.

    Args:
        network: what is trained.
        loss: the mean loss of a batch.
        optimizer: over the network's parameters.
        schedule: stepped after each batch, or ``None``.
        precision: what the network runs in, see :func:`precision_context`.
        batch_size: of training.
        eval_batch_size: of validation.
    """

    network: nn.Module
    loss: Loss
    optimizer: Optimizer
    schedule: LRScheduler | None
    precision: AbstractContextManager[object]
    batch_size: int
    eval_batch_size: int

    def run(self, train: PlainData, val: PlainData, orders: Sequence[Tensor], steps: int) -> list[tuple[float, float]]:
        """Train an epoch of ``steps`` batches for each order of the samples, each followed by a validation.

        Returns:
            Loss and accuracy of each validation, see :meth:`evaluate`.
        """
        validations = []
        for order in orders:
            self.train(train, order, steps)
            validations.append(self.evaluate(val))
        return validations

    def train(self, data: PlainData, order: Tensor, steps: int) -> None:
        """Train on ``steps`` batches of the samples in ``order``."""
        self.network.train()
        for chosen in torch.split(order, self.batch_size)[:steps]:
            inputs, targets = data.prepare(data.features.index_select(0, chosen)), data.targets.index_select(0, chosen)
            loss = self.loss(self._forward(inputs), targets)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()

    @torch.inference_mode()
    def evaluate(self, data: PlainData) -> tuple[float, float]:
        """The mean loss, and the share of samples whose largest output is their target's (0 where there are none)."""
        self.network.eval()
        total, right = 0.0, 0
        for inputs, targets in zip(
            torch.split(data.features, self.eval_batch_size),
            torch.split(data.targets, self.eval_batch_size),
            strict=True,
        ):
            outputs = self._forward(data.prepare(inputs))
            total += self.loss(outputs, targets).item() * len(targets)
            if not targets.is_floating_point():
                right += int((outputs.argmax(dim=1) == targets).sum())
        return total / len(data.targets), right / len(data.targets)

    def _forward(self, inputs: Tensor) -> Tensor:
        with self.precision:
            outputs: Tensor = self.network(inputs)
        return outputs.float()
