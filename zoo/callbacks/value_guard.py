"""A run ends at the first bad value, in words, and with its last good checkpoint as it was."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

from zoo.tasks import Task
from zoo.values import (
    NonFiniteBatchError,
    NonFiniteLossError,
    NonFiniteWeightsError,
    Place,
    finite_flag,
    first_not_finite,
    is_finite,
    is_looked_at,
    named_tensors,
)

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_READ_EVERY = 50  # batches, where the trainer does not say how often it logs


class BatchSizeError(ValueError):
    """A training batch of a single sample, of which batch norm can take no statistics."""


class NoTrainingStepError(RuntimeError):
    """A fit that was to train and ended without a training step."""


class ValueGuard(Callback):
    """Stops a fit, a validation or a test of any module at a value that would spoil it, and says where it is.

    * NaN or infinity in a batch, in any floating-point tensor of it: before the batch is used.
    * A training loss that is not finite: before it is differentiated, so that the weights are still good. (A
      :class:`zoo.Task` sees to its own losses.) Under 16-bit precision with a gradient scaler, which leaves out steps
      that overflow, only NaN.
    * Weights, or other tensors of the state, that an update made NaN or infinite: before a checkpoint with them is
      written, and at the end of the fit. Tensors that were not finite when the fit began, such as masks, may stay so.
      Lightning does not ask callbacks about checkpoints of the weights alone (``save_weights_only=True``).
    * Batch norm over a single value: in the first step, where the loader says how large its last batch will be (torch's
      ``DataLoader`` and :class:`datamodules.EpochLoader` do), else at the batch.
    * A fit that was to train and ends without one step.

    On a CPU values are looked at at once. Other devices are not waited for: what they find is read every
    ``log_every_n_steps`` and before validations and checkpoints, and names the batch it was in, but not the sample.

    Args:
        ignore: fields that may hold NaN or infinity, such as targets that are NaN where they are not known:
            ``"targets"``, or as :func:`zoo.values.named_tensors` calls them. A name counts for everything inside it.

    Raises:
        NonFiniteBatchError, NonFiniteLossError, NonFiniteWeightsError, BatchSizeError, NoTrainingStepError: in a run,
            as above.
    """

    def __init__(self, ignore: Collection[str] = ()) -> None:
        if isinstance(ignore, str):
            raise ValueError(f"ignore must be a collection of names, such as [{ignore!r}], got a string")
        self.ignore = frozenset(ignore)
        self._pending: list[tuple[Tensor, str, Place]] = []
        self._batch_idx = 0
        self._never_finite: frozenset[str] = frozenset()
        self._began = False
        self._batch_norms: list[tuple[str, nn.Module]] = []
        self._expects_single = False
        self._hooks: list[RemovableHandle] = []

    # ------------------------------------------------------------------ the fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pending.clear()
        self._began = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tensors = _tensors_of(pl_module)
        self._never_finite = frozenset(name for name, tensor in tensors if not is_finite(tensor))
        self._batch_norms = [
            (name, module)
            for name, module in pl_module.named_modules()
            if isinstance(module, _BATCH_NORMS)
            # Which of several processes together have more than one value.
            and not (isinstance(module, nn.SyncBatchNorm) and trainer.world_size > 1)
        ]
        self._expects_single = bool(self._batch_norms) and _last_batch_size(trainer) == 1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._began = True
        self._batch_idx = batch_idx
        size = self._look(trainer, "training", batch, batch_idx)
        if self._batch_norms and (size == 1 or self._expects_single):
            self._watch_batch_norms(size, _place(trainer, "training", batch_idx))
        if self._pending:
            interval = trainer.log_every_n_steps or _READ_EVERY  # type: ignore[attr-defined]  # set by its connector
            if (trainer.global_step + 1) % interval == 0:
                self._read()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if isinstance(pl_module, Task):
            return
        if trainer.scaler is not None:
            loss = torch.where(loss.isnan(), loss, 0.0)  # what overflows under the scale is left to the scaler
        if loss.device.type != "cpu":
            self._pending.append((finite_flag(loss), "loss", _place(trainer, "training", self._batch_idx)))
        elif not is_finite(loss):
            self._refuse_loss(loss.detach().sum().item(), _place(trainer, "training", self._batch_idx))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._hooks:
            self._unwatch()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._refuse_weights(_tensors_of(pl_module), trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run resumed at its end has nothing left to do, and of none at all nobody expects a step.
        if self._began or trainer.should_stop or trainer.max_epochs == 0 or trainer.max_steps == 0:
            return
        if trainer.global_step > 0 and _has_batches(trainer):
            return
        raise NoTrainingStepError(
            "not a single training step was taken: the training loader gave no batch; look whether limit_train_batches "
            "is 0, the data are empty, or drop_last leaves out the only batch there is (lower batch_size)"
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._read()
        self._refuse_weights(checkpoint["state_dict"].items(), trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._pending.clear()
        self._unwatch()

    # ------------------------------------------------------------------ evaluation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._look(trainer, "validation", batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._look(trainer, "test", batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()

    # ------------------------------------------------------------------ batches, losses, weights

    def _look(self, trainer: Trainer, stage: str, batch: Any, batch_idx: int, loader: int = 0) -> int | None:
        """Look at a batch, and return the number of its samples, if it has tensors."""
        if isinstance(batch, tuple | list) and not self.ignore and all(map(_is_plainly_finite, batch)):
            return len(batch[0]) if batch else None
        size: int | None = None
        for field, tensor in named_tensors(batch):
            if size is None and tensor.ndim:
                size = len(tensor)
            if not is_looked_at(tensor) or (self.ignore and self._is_ignored(field)):
                continue
            if tensor.device.type != "cpu":
                self._pending.append((finite_flag(tensor), field, _place(trainer, stage, batch_idx, loader)))
            elif not is_finite(tensor):
                raise NonFiniteBatchError(field, _place(trainer, stage, batch_idx, loader), tensor)
        return size

    def _is_ignored(self, field: str) -> bool:
        return any(field == name or field.startswith((f"{name}[", f"{name}.")) for name in self.ignore)

    def _read(self) -> None:
        """Look at what other devices have found."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        found = torch.stack([flag for flag, _, _ in pending]).tolist()  # the one wait for the device
        for value, (_, field, place) in zip(found, pending, strict=True):
            if value != 0.0 and field == "loss":
                self._refuse_loss(value, place)
            if value != 0.0:
                raise NonFiniteBatchError(field, place)

    @staticmethod
    def _refuse_loss(value: float, place: Place) -> None:
        raise NonFiniteLossError(value, place.step, epoch=place.epoch, batch=place.batch)

    def _refuse_weights(self, tensors: Iterable[tuple[str, Any]], trainer: Trainer) -> None:
        # The states of metrics may begin with infinity, as a minimum does.
        metrics = tuple(
            f"{name}." for name, module in trainer.lightning_module.named_modules() if isinstance(module, Metric)
        )
        looked_at = (
            (name, tensor)
            for name, tensor in tensors
            if isinstance(tensor, Tensor) and name not in self._never_finite and not name.startswith(metrics)
        )
        broken = first_not_finite(looked_at)
        if broken is not None:
            raise NonFiniteWeightsError(broken, trainer.global_step)

    # ------------------------------------------------------------------ batch norm

    def _watch_batch_norms(self, size: int | None, place: Place) -> None:
        """Look at what reaches batch norm in this step.

        Only the network knows: behind a convolution a single image still has many values a channel.
        """
        which = "the last batch of every epoch" if size != 1 else f"the batch {place}"
        self._expects_single = False
        for name, module in self._batch_norms:
            look = partial(_refuse_single, which, f"{name} ({type(module).__name__})", size or 1)
            self._hooks.append(module.register_forward_pre_hook(look))

    def _unwatch(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()


def _is_plainly_finite(values: Any) -> bool:
    """Whether something is a dense tensor of samples on the CPU that surely holds neither NaN nor infinity.

    What nearly every batch is made of, told with hardly more than the one sum that it takes.
    """
    if type(values) is not Tensor or values.ndim == 0 or values.device.type != "cpu" or values.requires_grad:
        return False
    if not values.is_floating_point():
        return not values.is_complex()
    return values.dtype == torch.float32 and values.layout == torch.strided and math.isfinite(values.sum().item())


def _refuse_single(which: str, name: str, size: int, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Refuse inputs of batch norm that hold one value a sample and channel."""
    values: Tensor = inputs[0]
    if module.training and values.numel() == size * values.shape[1]:
        raise BatchSizeError(
            f"{which} holds a single sample, of which {name} gets one value a channel, too few for its statistics: "
            "leave it out with drop_last=True, or take another batch_size"
        )


def _place(trainer: Trainer, stage: str, batch_idx: int, loader: int = 0) -> Place:
    return Place(stage, trainer.global_step, trainer.current_epoch, batch_idx, loader)


def _tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, by the names they have in a state dict, but for those that have no shape yet."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor) for name, tensor in tensors if not is_lazy(tensor)]


def _has_batches(trainer: Trainer) -> bool:
    """Whether a training epoch has batches, as far as its loader can tell."""
    return trainer.limit_train_batches != 0 and trainer.num_training_batches > 0


def _last_batch_size(trainer: Trainer) -> int | None:
    """Samples of the last batch of a training epoch in this process, if the loader can tell and it is not left out."""
    if 0 <= trainer.max_steps * trainer.accumulate_grad_batches < trainer.num_training_batches:
        return None  # no epoch comes to its end
    loader: Any = trainer.train_dataloader
    try:
        if trainer.num_training_batches < len(loader):
            return None
    except (TypeError, NotImplementedError):  # it has no length
        return None
    if not isinstance(loader, DataLoader):
        size = getattr(loader, "last_batch_size", None)
        return size if isinstance(size, int) else None
    if loader.batch_size is None or loader.drop_last or isinstance(loader.dataset, IterableDataset):
        return None
    samples = len(loader.sampler)  # type: ignore[arg-type]  # that of a data set with a length has one
    return samples % loader.batch_size or loader.batch_size
