"""Classifiers that learn side by side and decide together."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from zoo.networks.ensemble import Ensemble
from zoo.tasks.base import Batch, inputs_of
from zoo.tasks.multiclass import MulticlassClassification


class EnsembleClassification(MulticlassClassification):
    """Classifiers trained side by side, each by its own loss, and evaluated as the one that their vote makes of them.

    In training the loss is the mean of the members' losses: no member's gradient depends on another, and an optimizer
    that does not mind the scale of gradients, as those of Adam's kind, trains each as it would by itself, with the same
    batches. In validation, test and prediction all is of the vote: the loss, the metrics, and the probabilities.

    Args:
        network: the members.
        num_classes: see :class:`MulticlassClassification`, as for all below.
        label_smoothing: see there; of the members' losses.
        class_weights: see there.
        top_k: see there.
        optimizer: see :class:`zoo.Task`.
        scheduler: see :class:`zoo.Task`.

    Raises:
        TypeError: a network that is no :class:`zoo.networks.Ensemble`.
    """

    network: Ensemble

    def __init__(
        self,
        network: Ensemble,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        top_k: int = 2,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not isinstance(network, Ensemble):
            raise TypeError(f"network must be a zoo.networks.Ensemble, got {type(network).__name__}")
        super().__init__(network, num_classes, label_smoothing, class_weights, top_k, optimizer, scheduler)

    def outputs_of(self, batch: Batch | Tensor) -> Tensor:
        """The logits of the vote, ``(batch, num_classes)``; in training those of each member between the two."""
        if not self.training:
            return super().outputs_of(batch)
        inputs = inputs_of(batch)
        return self.network.member_logits(*([inputs] if isinstance(inputs, Tensor) else inputs))

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        super().check_targets(outputs[:, 0] if outputs.ndim == 3 else outputs, targets)

    def compute_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.ndim == 2:
            return super().compute_loss(outputs, targets)
        # The mean over the members is that over all pairs of sample and member: each has the sample's own weight.
        return super().compute_loss(outputs.flatten(0, 1), targets.repeat_interleave(outputs.shape[1]))
