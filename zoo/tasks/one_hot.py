"""Classes by regression: the largest of several outputs is the answer."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy


class OneHotAccuracy(MulticlassAccuracy):
    """The share of samples whose largest output is where the target's one is.

    Args:
        num_classes: outputs a sample.

    Shape:
        outputs and targets ``(batch, num_classes)`` float.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="micro")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs.argmax(dim=1), targets.argmax(dim=1))
