"""Numbers from inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score

from zoo.networks.checks import check_choice
from zoo.tasks.base import Batch, TargetError, Task, inputs_of, require_tensor

REGRESSION_LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "mse": lambda outputs, targets, _: functional.mse_loss(outputs, targets),
    "huber": lambda outputs, targets, delta: functional.huber_loss(outputs, targets, delta=delta),
    "l1": lambda outputs, targets, _: functional.l1_loss(outputs, targets),
}


class Regression(Task):
    """Real-valued targets; ``{val,test}/mse``, ``mae`` and ``r2`` beside the loss.

    R² is one minus the share of the targets' variance that is left unexplained, a plain mean over the outputs if there
    are several; a single sample has none (NaN). Where all targets are alike it is 1 if they are hit exactly, else 0.

    Args:
        network: maps inputs to values of the targets' shape; any module.
        loss: ``"mse"``, the mean of squares; ``"huber"``, squares up to ``huber_delta`` and lines beyond, which
            outliers cannot pull far (Huber 1964); or ``"l1"``, the mean of absolute values.
        huber_delta: the residual at which the Huber loss turns into straight lines, in the targets' unit; half the
            square up to there.
        metrics: further metrics by name, updated with ``(outputs, targets)``, each of ``(batch, values a sample)``.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.

    Raises:
        ValueError: an unknown loss, a ``huber_delta`` that is not positive, or a metric's name that is taken.
        TargetError: in a step, targets that are no floating-point numbers, or whose shape is not the outputs': a column
            would be broadcast against a row, and the loss would be that of every output with every target.

    Example:
        >>> task = Regression(network=nn.Linear(4, 1), loss="huber")
        >>> task(torch.zeros(2, 4)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        network: nn.Module,
        loss: str = "mse",
        huber_delta: float = 1.0,
        metrics: dict[str, Metric] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        check_choice("loss", loss, REGRESSION_LOSSES)
        if not 0.0 < huber_delta < float("inf"):
            raise ValueError(f"huber_delta must be a positive number, got {huber_delta!r}")
        taken = {"loss", "mse", "mae", "r2"} & set(metrics or {})
        if taken:
            raise ValueError(f"metrics must have names of their own, got {sorted(taken)[0]!r}")
        super().__init__(
            network=network,
            metrics={"mse": MeanSquaredError(), "mae": MeanAbsoluteError(), "r2": _R2Score(), **(metrics or {})},
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.loss = loss
        self.huber_delta = huber_delta

    def _shared_step(self, batch: Batch) -> tuple[Tensor, Any, Tensor]:
        outputs, targets, loss = super()._shared_step(batch)
        if outputs.ndim > 2 and not isinstance(inputs_of(batch), Tensor):
            raise TargetError(
                f"the network gives an output for every step, {tuple(outputs.shape)}, those in the padding "
                'included, which would count like any other: read the last step, Recurrent(read="last")'
            )
        return outputs, targets, loss

    def compute_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # In the outputs' 32 bits, whatever the module's own precision makes of the targets: torch mixes no types here.
        return REGRESSION_LOSSES[self.loss](outputs, targets.to(outputs.dtype), self.huber_delta)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        require_tensor(targets)
        if not targets.is_floating_point():
            raise TargetError(
                f"targets must be floating-point numbers, got {str(targets.dtype).removeprefix('torch.')}: convert "
                "them with targets.float()"
            )
        if targets.shape == outputs.shape:
            return
        got, expected = tuple(targets.shape), tuple(outputs.shape)
        advice = ""
        if targets.numel() == outputs.numel():
            advice = f": reshape them with targets.reshape({', '.join(map(str, (-1, *expected[1:])))})"
        raise TargetError(f"targets must have the shape of the network's outputs, {expected}, got {got}{advice}")

    def metric_inputs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # R² is a difference of sums of squares: in 32 bits little would be left of it where the targets' mean is large.
        precision = torch.float32 if outputs.device.type == "mps" else torch.float64
        return (
            outputs.reshape(len(outputs), -1).to(precision),
            targets.reshape(len(targets), -1).to(precision),
        )

    def predict_step(self, batch: Batch | Tensor, batch_idx: int = 0) -> Tensor:
        """The values, in the targets' shape."""
        return self.outputs_of(batch)


class _R2Score(R2Score):
    """R² that is NaN where it is not defined, instead of the end of the run, and the same in every unit."""

    def compute(self) -> Tensor:
        if int(self.total) < 2:
            return torch.full_like(self.sum_error, torch.nan, dtype=torch.float32).mean()
        variation = self.sum_squared_error - self.sum_error.square() / self.total
        # No more than the subtraction's rounding: the targets are all alike. The base's bound is a fixed 1e-4, below
        # which it calls every model perfect: targets in kilometres would need another than the same in metres.
        is_constant = variation <= 500.0 * torch.finfo(variation.dtype).eps * self.sum_squared_error
        scores = torch.where(is_constant, (self.residual == 0).to(variation.dtype), 1.0 - self.residual / variation)
        return scores.mean().float()
