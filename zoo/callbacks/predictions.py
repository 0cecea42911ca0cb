"""What a classifier said in a test, seen in passing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from torchmetrics.utilities.distributed import gather_all_tensors

from zoo.tasks.base import inputs_of
from zoo.tasks.ranks import in_process_group

MOST_IMAGES = 32


@dataclass(frozen=True)
class WorstInputs:
    """The misclassified inputs whose prediction was the surest, the surest first; 32 at most.

    Args:
        inputs: ``(n, ...)`` as the network saw them.
        targets: ``(n,)`` true classes.
        predictions: ``(n,)`` predicted classes.
        confidences: ``(n,)`` probabilities of the predicted classes.
    """

    inputs: Tensor
    targets: Tensor
    predictions: Tensor
    confidences: Tensor

    def worst(self) -> WorstInputs:
        """The 32 surest of these, in order."""
        order = self.confidences.argsort(descending=True, stable=True)[:MOST_IMAGES]
        return WorstInputs(self.inputs[order], self.targets[order], self.predictions[order], self.confidences[order])


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of a whole test set, on the CPU.

    Args:
        probabilities: ``(samples, classes)`` float32.
        classes: ``(samples,)`` int64, predicted.
        targets: ``(samples,)`` int64, true.
        worst: see there; ``None`` where nobody wanted the inputs, or they are not of one shape.
    """

    probabilities: Tensor
    classes: Tensor
    targets: Tensor
    worst: WorstInputs | None

    @property
    def num_classes(self) -> int:
        """Classes that there are by the network's outputs."""
        return self.probabilities.shape[1]


class PredictionRecorder:
    """Keeps the outputs of ``forward`` in the batches of a test, so that nothing is computed twice.

    Where a test step does not call the module, only its parts, it is called once more for each batch. What goes wrong
    is kept for :meth:`finish`: processes have to finish together.

    Args:
        module: see :class:`zoo.callbacks.ClassificationFigure`.
        with_inputs: keep the worst inputs.
    """

    def __init__(self, module: LightningModule, *, with_inputs: bool) -> None:
        self.module = module
        self.with_inputs = with_inputs
        self.error: Exception | None = None
        self._mixed = False
        self._outputs: Tensor | None = None
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._worst: WorstInputs | None = None
        self._hook: RemovableHandle = module.register_forward_hook(self._see)

    def _see(self, module: Any, inputs: Any, outputs: Any) -> None:
        self._outputs = outputs

    def add(self, trainer: Trainer, batch: Any) -> None:
        """Keep what was said of a batch."""
        outputs, self._outputs = self._outputs, None
        if self.error is not None:
            return
        try:
            inputs, targets = inputs_of(batch), batch[1]
            if outputs is None:
                with trainer.precision_plugin.test_step_context():
                    outputs = self.module(inputs) if isinstance(inputs, Tensor) else self.module(*inputs)
                self._outputs = None
            self._keep(*classified(self.module, outputs, targets), inputs)
        except Exception as error:  # noqa: BLE001  # of anyone's module, on anyone's data
            self.error = error

    def _keep(self, probabilities: Tensor, classes: Tensor, targets: Tensor, inputs: Any) -> None:
        kept = probabilities.float().cpu(), classes.cpu(), targets.cpu()
        self._kept.append(kept)
        if not self.with_inputs or self._mixed:
            return
        if not isinstance(inputs, Tensor) or (
            self._worst is not None and self._worst.inputs.shape[1:] != inputs.shape[1:]
        ):
            self._mixed = True  # what is of different shapes cannot be kept together
            return
        wrong = (kept[1] != kept[2]).nonzero().squeeze(1)
        confidences = kept[0][wrong].gather(1, kept[1][wrong, None]).squeeze(1)
        few = confidences.argsort(descending=True, stable=True)[:MOST_IMAGES]
        wrong = wrong[few]
        new = WorstInputs(
            inputs[wrong.to(inputs.device)].float().cpu(), kept[2][wrong], kept[1][wrong], confidences[few]
        )
        self._worst = new if self._worst is None else _joined([self._worst, new]).worst()

    def close(self) -> None:
        """See no more."""
        self._hook.remove()

    def finish(self, trainer: Trainer) -> Predictions:
        """All that was kept, by all processes, which must call this together.

        Raises:
            RuntimeError: something went wrong in this process or in another, or there was not a single sample.
        """
        self.close()
        several = trainer.world_size > 1 and in_process_group()
        device = trainer.strategy.root_device
        flags = torch.tensor([self.error is not None, self._mixed], dtype=torch.float32, device=device)
        if several:
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        failed, mixed = (bool(flag) for flag in flags)
        if failed:
            raise RuntimeError(_reason(self.error)) from self.error
        probabilities, classes, targets = map(torch.cat, zip(*(self._kept or [_nothing()]), strict=True))
        worst = None if mixed else self._worst
        if several:
            probabilities, classes, targets = (_gather(part, device) for part in (probabilities, classes, targets))
            if self.with_inputs and not mixed:
                worst = _gather_worst(worst, device)
        if not len(targets):
            raise RuntimeError("the test had not a single sample")
        return Predictions(probabilities, classes, targets, worst)


def classified(module: LightningModule, outputs: Any, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities ``(batch, classes)``, predicted classes and true classes of a batch.

    They are what the module's metrics get where it has ``metric_inputs``, as a :class:`zoo.Task` has, else the softmax
    of logits ``(batch, classes)``, or the sigmoid of one logit a sample.

    Raises:
        ValueError: outputs or targets of other shapes.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        raise ValueError("a batch must be (inputs, targets), and forward must give a tensor of logits")
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs.squeeze(1)
    if outputs.ndim not in (1, 2) or len(outputs) != len(targets):
        raise ValueError(f"forward must give logits (batch, classes) or (batch,), got {tuple(outputs.shape)}")
    metric_inputs = getattr(module, "metric_inputs", None)
    if metric_inputs is not None:
        scores, targets = metric_inputs(outputs, targets)
    else:
        scores = outputs.sigmoid() if outputs.ndim == 1 else outputs.softmax(dim=1)
    if scores.ndim == 1:
        classes = (scores > getattr(module, "threshold", 0.5)).long()
        scores = torch.stack([1.0 - scores, scores], dim=1)
    else:
        classes = scores.argmax(dim=1)
    if targets.ndim == 2 and targets.shape == scores.shape:  # one-hot
        targets, scores = targets.argmax(dim=1), scores.clamp(0.0, 1.0)
    if targets.numel() == len(targets):
        targets = targets.flatten().long()
    if targets.ndim != 1 or (len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < scores.shape[1]):
        raise ValueError(f"targets must be class indices (batch,) in 0..{scores.shape[1] - 1}")
    return scores, classes, targets


def _reason(error: Exception | None) -> str:
    if error is None:
        return "another process could not follow the test"
    return " ".join(str(error).split()) or type(error).__name__


def _nothing() -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty(0, 0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)


def _gather(part: Tensor, device: torch.device) -> Tensor:
    """The parts of all processes, of any lengths, on the CPU."""
    return torch.cat([each.cpu() for each in gather_all_tensors(part.to(device)) if len(each)] or [part])


def _gather_worst(worst: WorstInputs | None, device: torch.device) -> WorstInputs:
    dimensions = torch.tensor(0 if worst is None else worst.inputs.ndim, device=device)
    torch.distributed.all_reduce(dimensions, torch.distributed.ReduceOp.MAX)
    if worst is None:  # this process had no batch
        none = torch.empty(0, dtype=torch.int64)
        worst = WorstInputs(torch.empty((0,) * int(dimensions)), none, none, torch.empty(0))
    columns = (worst.inputs, worst.targets, worst.predictions, worst.confidences)
    return WorstInputs(*(_gather(column, device) for column in columns)).worst()


def _joined(parts: list[WorstInputs]) -> WorstInputs:
    return WorstInputs(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("inputs", "targets", "predictions", "confidences")
        )
    )
