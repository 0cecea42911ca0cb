"""One class out of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from zoo.tasks.base import Batch, TargetError, label_advice, require_tensor, sample_with
from zoo.tasks.temperature import TemperatureScaling
from zoo.tasks.top_k import TopKAccuracy


class ClassPrediction(NamedTuple):
    """What a classifier predicts for a batch."""

    probabilities: Tensor
    """``(batch, num_classes)`` float, each row sums to 1; of the logits over the task's ``temperature``."""
    classes: Tensor
    """``(batch,)`` int64, the most probable class."""


class MulticlassClassification(TemperatureScaling):
    """Cross-entropy over ``num_classes`` logits.

    Beside the loss ``{val,test}/accuracy``, the share of samples that are right; ``f1``, the mean over the classes of
    their F1 scores; ``top2_accuracy`` (or another ``top_k``), the share whose class is among the most probable; and
    ``ece``, the expected calibration error, by how much the probability of the predicted class differs from the share
    that is right, in 15 bins (Guo et al. 2017). :func:`zoo.calibration.calibrate` lowers it.

    Args:
        network: maps inputs to logits ``(batch, num_classes)``; any module.
        num_classes: number of classes, at least 2.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1) (Szegedy et al. 2016).
        class_weights: weight of each class in the loss, ``num_classes`` numbers of at least 0, or ``None``.
        top_k: how many of the most probable classes count for the top-k accuracy, from 2 to ``num_classes``.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.

    Raises:
        ValueError: a value out of range.
        TargetError: in a step, targets that are no class indices ``(batch,)`` int64 in ``0..num_classes-1``, or
            logits of another shape.

    Example:
        >>> task = MulticlassClassification(network=nn.Linear(4, 3), num_classes=3)
        >>> task(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    calibration_metrics = frozenset({"ece"})

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        top_k: int = 2,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f"num_classes must be an integer of at least 2, got {num_classes!r}")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be at least 0 and less than 1, got {label_smoothing!r}")
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(f"class_weights must hold {num_classes} numbers, one a class, got {len(class_weights)}")
        if class_weights is not None and not (
            all(0.0 <= weight < math.inf for weight in class_weights) and any(weight > 0.0 for weight in class_weights)
        ):
            raise ValueError(f"class_weights must be at least 0, one of them greater, got {class_weights!r}")
        if isinstance(top_k, bool) or not isinstance(top_k, int) or not 2 <= top_k <= num_classes:
            raise ValueError(f"top_k must be an integer from 2 to num_classes={num_classes}, got {top_k!r}")
        super().__init__(
            network=network,
            # The targets are checked once for all metrics, in check_targets.
            metrics={
                "accuracy": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
                "f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
                f"top{top_k}_accuracy": TopKAccuracy(top_k),
                "ece": MulticlassCalibrationError(num_classes, validate_args=False),
            },
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self._leaves_out_classes = class_weights is not None and not all(class_weights)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # Made anew from the hyperparameters, so it has no place in the state dict.
        self.register_buffer("class_weights", weights, persistent=False)

    def setup(self, stage: str) -> None:
        # Before the first step: a GPU could only answer a label out of range with an assertion in a kernel.
        data_classes = getattr(self.trainer.datamodule, "num_classes", None)  # type: ignore[attr-defined]
        if data_classes is not None and data_classes > self.num_classes:
            raise TargetError(
                f"the data have {data_classes} classes, the model num_classes={self.num_classes}: labels up to "
                f"{data_classes - 1} are outside 0..{self.num_classes - 1}"
            )

    def compute_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weights = self._buffers["class_weights"]
        if weights is not None:
            weights = weights.to(outputs.dtype)  # as the outputs are, whatever the module's own precision
        labels = self._in_range(targets)
        loss = functional.cross_entropy(outputs, labels, weight=weights, label_smoothing=self.label_smoothing)
        return loss if labels is targets else torch.where((labels == targets).all(), loss, torch.nan)

    def loss_weight(self, outputs: Tensor, targets: Tensor) -> Tensor | float:
        weights = self._buffers["class_weights"]
        return len(outputs) if weights is None else weights[self._in_range(targets)].sum()

    def _in_range(self, targets: Tensor) -> Tensor:
        """The labels; on a GPU, where nobody waits to look at them, the nearest that there are.

        There one out of range would end the process with an assertion in a kernel, and of -100 the loss would say
        nothing at all. A loss that is no number ends the run in words.
        """
        return targets if targets.device.type == "cpu" else targets.clamp(0, self.num_classes - 1)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        require_tensor(targets)
        if outputs.ndim != 2 or outputs.shape[1] != self.num_classes:
            raise TargetError(
                f"the network must give logits of shape (batch, {self.num_classes}), got {tuple(outputs.shape)}"
            )
        if targets.dtype != torch.int64 or targets.shape != outputs.shape[:1]:
            raise TargetError(
                f"targets must be class indices of shape ({len(outputs)},) and type int64, "
                f"got {tuple(targets.shape)} and {str(targets.dtype).removeprefix('torch.')}"
                f"{label_advice(targets)}"
            )
        if (targets.device.type == "cpu" or not self.training) and len(targets):
            lowest, highest = (int(bound) for bound in targets.aminmax())
            if lowest < 0 or highest >= self.num_classes:
                wrong = lowest if lowest < 0 else highest
                why = f"num_classes={self.num_classes} does not fit the data"
                if lowest < 0:
                    why = "no label is left out of the loss, leave such samples out of the data"
                raise TargetError(
                    f"label {wrong} is outside 0..{self.num_classes - 1}: {why}; it is that of sample "
                    f"{sample_with(wrong, targets)} of the batch"
                )
            weights = self._buffers["class_weights"] if self._leaves_out_classes else None
            if weights is not None and not weights[targets].any():
                raise TargetError(
                    "all labels of the batch have class weight 0, which leaves nothing to take the mean loss of: give "
                    "a class among them a weight greater than 0, or take larger batches"
                )

    def metric_inputs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # Probabilities, because a metric can only guess what it is given: logits that happen to lie between 0 and 1 it
        # would take for them. Never quite 1, for which the calibration error has a bin of its own beside the 15.
        return outputs.softmax(dim=1).clamp_(max=1.0 - torch.finfo(outputs.dtype).eps), targets

    def predict_step(self, batch: Batch | Tensor, batch_idx: int = 0) -> ClassPrediction:
        logits = self.outputs_of(batch)
        # The class as without a temperature, which may round two probabilities to one.
        return ClassPrediction(self.calibrated(logits).softmax(dim=1), logits.softmax(dim=1).argmax(dim=1))
