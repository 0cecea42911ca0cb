"""Temperature scaling: probabilities that are as often right as they say.

Guo et al., "On calibration of modern neural networks", ICML 2017. One number, fitted on validation, divides the logits.
It changes no decision, and so no accuracy; what it changes is how sure the decisions are. :func:`calibrate` fits it and
leaves it in the task, whose checkpoints hold it from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error

from zoo.tasks import BinaryClassification, MulticlassClassification, Task
from zoo.tasks.temperature import TemperatureScaling

Stage = Literal["val", "test"]

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
_CHUNK = 65_536  # samples in 64 bits at once
_MOST_STEPS = 200  # halving the range to the last bit takes 60
_BINS = 15  # of the tasks' own ``ece``, and of the paper


class NotCalibratableError(ValueError):
    """A task, or data, for which there is no temperature to be found; says why."""


@dataclass(frozen=True)
class Confidence:
    """How well the probabilities of a split are calibrated.

    Args:
        nll: mean negative log-likelihood of the labels, in nats; without label smoothing and class weights.
        ece: expected calibration error in 15 bins.
    """

    nll: float
    ece: float


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` found.

    Args:
        temperature: that now is in the task.
        samples: of the validation split.
        before: on validation, at a temperature of 1.
        after: on validation, at the temperature found.
        is_bound: whether the temperature is the lowest or the highest that is tried, as the likelihood only grows
            towards it: every validation sample is right, say, and nothing tells how sure to be.
    """

    temperature: float
    samples: int
    before: Confidence
    after: Confidence
    is_bound: bool


def calibrate(task: Task, datamodule: LightningDataModule, trainer: Trainer | None = None) -> Calibration:
    """Fit the temperature of a classifier to the validation split, and leave it in the task.

    The weights stay as they are, and so does every decision. Nothing is drawn: the same task and data give the same
    temperature.

    Args:
        task: a ``MulticlassClassification`` or ``BinaryClassification`` that is trained; changed in place.
        datamodule: with the validation split, which must not have been trained on.
        trainer: runs the validation, with the precision and on the device that it was made for; ``None`` is one in 32
            bits that writes and prints nothing.

    Raises:
        NotCalibratableError: the task gives no probabilities, a network's logits are not finite, there are no
            validation samples, or the trainer has several processes.
    """
    logits, labels = collect_logits(task, datamodule, trainer, "val")
    temperature = fit_temperature(logits, labels)
    assert isinstance(task, TemperatureScaling)
    task.temperature = temperature
    return Calibration(
        temperature,
        len(labels),
        before=confidence(logits, labels),
        after=confidence(logits, labels, temperature),
        is_bound=temperature in (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which labels are most likely, from 0.01 to 100, and never worse than 1.

    In the inverse temperature the mean negative log-likelihood is convex, so that there is one minimum: the root of its
    derivative, found by Newton's method within a bracket, in 64 bits. Where the likelihood grows without end (all
    labels have the largest logit, or none is better than chance) it is the bound on that side.

    Args:
        logits: ``(samples, classes)``.
        labels: ``(samples,)`` int64.

    Raises:
        NotCalibratableError: no samples, logits that are not finite, or a label out of range.
    """
    _check(logits, labels)
    low, inverse, high = 1.0 / HIGHEST_TEMPERATURE, 1.0, 1.0 / LOWEST_TEMPERATURE
    if _slope_and_curvature(logits, labels, inverse)[0] == 0.0:  # all logits are alike, or nothing is left to gain
        return 1.0
    # Not only beyond zero: in 64 bits the slope of who is always right is zero from some point on.
    if _slope_and_curvature(logits, labels, high)[0] <= 0.0:
        return LOWEST_TEMPERATURE
    if _slope_and_curvature(logits, labels, low)[0] >= 0.0:
        return HIGHEST_TEMPERATURE
    for _ in range(_MOST_STEPS):
        slope, curvature = _slope_and_curvature(logits, labels, inverse)
        if slope == 0.0:
            break
        low, high = (inverse, high) if slope < 0.0 else (low, inverse)
        following = inverse - slope / curvature if curvature > 0.0 else math.nan
        if not low < following < high:
            following = (low + high) / 2
        if math.isclose(following, inverse, rel_tol=1e-12):
            break
        inverse = following
    temperature = 1.0 / inverse
    better = confidence(logits, labels, temperature).nll < confidence(logits, labels).nll
    return temperature if better else 1.0  # no more than rounding apart


def confidence(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Confidence:
    """How well probabilities are calibrated at a temperature.

    Args:
        logits: ``(samples, classes)``.
        labels: ``(samples,)`` int64.
        temperature: positive.
    """
    nll = 0.0
    for part, wanted in _chunks(logits, labels):
        nll += float(functional.cross_entropy(part / temperature, wanted, reduction="sum"))
    # As the tasks' own metric does it: in 32 bits, and never quite 1.
    probabilities = (logits.float() / temperature).softmax(dim=1).clamp(max=1.0 - torch.finfo(torch.float32).eps)
    error = multiclass_calibration_error(probabilities, labels, logits.shape[1], n_bins=_BINS, validate_args=False)
    return Confidence(nll / len(labels), float(error))


def collect_logits(
    task: Task, datamodule: LightningDataModule, trainer: Trainer | None = None, stage: Stage = "val"
) -> tuple[Tensor, Tensor]:
    """The logits of a split, and its labels, on the CPU.

    Args:
        task: as for :func:`calibrate`, as are the data module and the trainer.
        datamodule: with the split.
        trainer: runs it; ``None`` is one in 32 bits.
        stage: ``"val"`` or ``"test"``.

    Returns:
        ``(samples, classes)`` float and ``(samples,)`` int64; of a binary task two classes, the first with logits 0.

    Raises:
        NotCalibratableError: as for :func:`calibrate`.
    """
    _require_probabilities(task)
    trainer = _silent_trainer() if trainer is None else trainer
    if trainer.world_size > 1:
        raise NotCalibratableError("a temperature is fitted by one process: give a trainer with devices=1")
    collector = _Collector()
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's callback connector
    handle = task.register_forward_hook(collector.keep_outputs)
    callbacks.insert(0, collector)  # ahead of others that ask the task something at a batch's end
    try:
        run = trainer.validate if stage == "val" else trainer.test
        run(task, datamodule=datamodule, verbose=False)
    finally:
        callbacks.remove(collector)
        handle.remove()
    if not collector.labels:
        raise NotCalibratableError(f"the {stage} split has no samples")
    logits, labels = torch.cat(collector.logits), torch.cat(collector.labels)
    if isinstance(task, BinaryClassification):
        logits, labels = torch.stack([torch.zeros_like(logits), logits], dim=1), labels.long()
    _check(logits, labels)
    return logits, labels


class _Collector(Callback):
    """Keeps what the network says of every batch, and the labels."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self._outputs = torch.empty(0)

    def keep_outputs(self, task: Any, inputs: Any, outputs: Tensor) -> None:
        # The last ones before a batch's end are the batch's: others' callbacks, too, ask tasks something.
        self._outputs = outputs.detach()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.logits.append((self._outputs if self._outputs.dtype == torch.float64 else self._outputs.float()).cpu())
        self.labels.append(batch[1].cpu())

    on_test_batch_end = on_validation_batch_end


def _silent_trainer() -> Trainer:
    return Trainer(
        devices=1,
        precision="32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _require_probabilities(task: Task) -> None:
    if not isinstance(task, MulticlassClassification | BinaryClassification):
        raise NotCalibratableError(
            f"{type(task).__name__} gives no probabilities of classes, which is what a temperature is for: calibrate a "
            "MulticlassClassification or a BinaryClassification"
        )
    if isinstance(task, BinaryClassification) and task.hparams.get("activation") == "step":
        raise NotCalibratableError(
            f"{type(task).__name__} with activation='step' says 0 or 1 and no probability: nothing can be calibrated"
        )


def _check(logits: Tensor, labels: Tensor) -> None:
    if not len(labels):
        raise NotCalibratableError("there is no sample to fit a temperature to")
    if not logits.isfinite().all():
        sample = int((~logits.isfinite().all(dim=1)).nonzero()[0])
        raise NotCalibratableError(f"the logits of sample {sample} hold NaN or infinity: the network is broken")
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise NotCalibratableError(f"labels must be from 0 to {logits.shape[1] - 1}, one a class")


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits in 64 bits, and their labels, a part at a time."""
    for start in range(0, len(labels), _CHUNK):
        yield logits[start : start + _CHUNK].double(), labels[start : start + _CHUNK]


def _slope_and_curvature(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood by the inverse temperature.

    They are the mean logit under the probabilities less that of the label, and the variance of the logits.
    """
    slope = curvature = 0.0
    for part, wanted in _chunks(logits, labels):
        # About the label's logit: what all logits of a sample have in common would cost digits, and says nothing.
        margins = part - part.gather(1, wanted[:, None])
        probabilities = (margins * inverse).softmax(dim=1)
        means = (probabilities * margins).sum(dim=1)
        slope += float(means.sum())
        curvature += float((probabilities * (margins - means[:, None]).square()).sum())
    return slope / len(labels), curvature / len(labels)
