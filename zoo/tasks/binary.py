"""Yes or no."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryF1Score
from torchmetrics.utilities.data import dim_zero_cat

from zoo.tasks.base import Batch, TargetError, label_advice, require_tensor, sample_with
from zoo.tasks.temperature import TemperatureScaling


class BinaryPrediction(NamedTuple):
    """What a binary classifier predicts for a batch."""

    probabilities: Tensor
    """``(batch,)`` float, of class 1; of the logits over the task's ``temperature``."""
    classes: Tensor
    """``(batch,)`` int64, 1 where the probability is above the task's threshold, both before the temperature."""


class BinaryClassification(TemperatureScaling):
    """Binary cross-entropy of one logit; ``{val,test}/accuracy``, ``f1``, ``auroc`` and ``average_precision``.

    The area under the ROC curve is NaN where the labels are all of one class, the average precision where none is 1.

    Args:
        network: maps inputs to one logit a sample, ``(batch, 1)`` or ``(batch,)``; any module.
        pos_weight: weight of the samples of class 1 in the loss, greater than 0; the number of negatives over that of
            positives balances the classes. ``None`` is 1.
        threshold: the probability above which class 1 is predicted, in (0, 1); accuracy and F1 are those of the
            prediction.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.

    Raises:
        ValueError: a value out of range.
        TargetError: in a step, targets that are not 0 and 1 (or booleans) of shape ``(batch,)`` and type int64, or a
            network that gives more than one logit a sample.

    Example:
        >>> task = BinaryClassification(network=nn.Linear(4, 1))
        >>> task(torch.zeros(2, 4)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        network: nn.Module,
        pos_weight: float | None = None,
        threshold: float = 0.5,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if pos_weight is not None and not 0.0 < pos_weight < math.inf:
            raise ValueError(f"pos_weight must be a positive number, or None, got {pos_weight!r}")
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"threshold must be greater than 0 and less than 1, got {threshold!r}")
        super().__init__(
            network=network,
            # The targets are checked once for all metrics, in check_targets.
            metrics={
                "accuracy": BinaryAccuracy(threshold, validate_args=False),
                "f1": BinaryF1Score(threshold, validate_args=False),
                "auroc": _AUROC(validate_args=False),
                "average_precision": _AveragePrecision(validate_args=False),
            },
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.threshold = threshold
        # Made anew from the hyperparameters, so it has no place in the state dict.
        weight = None if pos_weight is None else torch.tensor(float(pos_weight))
        self.register_buffer("pos_weight", weight, persistent=False)

    def setup(self, stage: str) -> None:
        # Before the first step, in words: on a GPU only the loss could tell.
        data_classes = getattr(self.trainer.datamodule, "num_classes", None)  # type: ignore[attr-defined]
        if data_classes is not None and data_classes > 2:
            raise TargetError(f"the data have {data_classes} classes, a binary task has labels 0 and 1")

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The logits, ``(batch,)``."""
        logits = super().forward(inputs, lengths)
        return logits.squeeze(1) if logits.ndim == 2 and logits.shape[1] == 1 else logits

    def activate(self, logits: Tensor) -> Tensor:
        """Probabilities of class 1, from logits."""
        return torch.sigmoid(logits)

    def compute_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weight = self._buffers["pos_weight"]
        if weight is not None:
            weight = weight.to(outputs.dtype)  # as the outputs are, whatever the module's own precision
        labels = targets.to(outputs.dtype)
        loss = functional.binary_cross_entropy_with_logits(outputs, labels, pos_weight=weight)
        # On a GPU nobody waits to look at the labels; a loss that is no number ends the run there, too.
        return torch.where(((labels == 0.0) | (labels == 1.0)).all(), loss, torch.nan)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        require_tensor(targets)
        if outputs.ndim != 1:
            raise TargetError(
                f"the network must give one logit a sample, of shape (batch, 1) or (batch,), got {tuple(outputs.shape)}"
            )
        if targets.dtype not in (torch.int64, torch.bool) or targets.shape != outputs.shape:
            raise TargetError(
                f"targets must be labels 0 and 1 of shape ({len(outputs)},) and type int64 or bool, "
                f"got {tuple(targets.shape)} and {str(targets.dtype).removeprefix('torch.')}"
                f"{label_advice(targets)}"
            )
        # In training a GPU is not waited for: there the loss tells.
        if (targets.device.type == "cpu" or not self.training) and targets.dtype != torch.bool and len(targets):
            lowest, highest = (int(bound) for bound in targets.aminmax())
            if lowest < 0 or highest > 1:
                wrong = lowest if lowest < 0 else highest
                raise TargetError(
                    f"label {wrong} is outside {{0, 1}}: make two classes of them, or leave such samples out of the "
                    f"data; it is that of sample {sample_with(wrong, targets)} of the batch"
                )

    def metric_inputs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # Probabilities, because a metric can only guess what it is given: logits between 0 and 1 it would take for
        # them. Of the loss's sigmoid, not of the prediction's step, so that the ranking metrics have ranks.
        return torch.sigmoid(outputs), targets.long()

    def predict_step(self, batch: Batch | Tensor, batch_idx: int = 0) -> BinaryPrediction:
        logits = self.outputs_of(batch)
        # The threshold was chosen for what the network says, and a temperature changes no decision.
        classes = (self.activate(logits) > self.threshold).long()
        return BinaryPrediction(self.activate(self.calibrated(logits)), classes)


class _AUROC(BinaryAUROC):
    """The area that is NaN where it is not defined, instead of 0 and a warning."""

    def compute(self) -> Tensor:  # type: ignore[override]  # as the base's, which its own base does not expect
        targets = dim_zero_cat(self.target)
        if targets.min() == targets.max():
            return torch.full((), torch.nan, device=targets.device)
        return super().compute()


class _AveragePrecision(BinaryAveragePrecision):
    """The average that is NaN where it is not defined, instead of 0 and a warning."""

    def compute(self) -> Tensor:  # type: ignore[override]  # likewise
        targets = dim_zero_cat(self.target)
        if targets.max() == 0:
            return torch.full((), torch.nan, device=targets.device)
        return super().compute()
