"""What callbacks that draw samples of the test share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from zoo.callbacks.figure import FigureCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class Kept(NamedTuple):
    """Samples of one batch."""

    inputs: tuple[Tensor, ...]
    """What the module is called with: inputs, and their lengths if these differ; ``(samples, ...)`` each."""
    targets: tuple[Tensor, ...]
    """Likewise."""


class FigureOfTest(FigureCallback):
    """Keeps the first samples of a test, and draws them when it has ended, with the weights that were tested.

    A batch is a pair of inputs and targets, each a tensor or a pair of tensors (values and their lengths), such as
    :class:`datamodules.PaddedBatch`; of any other nothing is drawn. The module is called with the inputs,
    ``module(inputs)`` or ``module(values, lengths)``, in evaluation mode, at the trainer's precision, without
    gradients, and no random number that it may draw is missed by anybody. Of several test loaders the first is kept.

    The first process draws, of its own part of the test, and waits for no other; nothing is drawn where it has but a
    part of the weights (FSDP and its like).

    A subclass defines :attr:`figure_name`, :meth:`fits` and :meth:`draw`.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
        max_samples: samples that are kept.

    Raises:
        ValueError: ``max_samples`` below 1.
    """

    #: Of the file and of the image in the loggers.
    figure_name: str

    def __init__(
        self, title: str | None = None, directory: str | Path | None = None, max_samples: int = 10_000
    ) -> None:
        super().__init__(title, directory)
        if isinstance(max_samples, bool) or not isinstance(max_samples, int) or max_samples < 1:
            raise ValueError(f"max_samples must be a whole number of at least 1, got {max_samples!r}")
        self.max_samples = max_samples
        self._kept: list[Kept] = []
        self._count = 0

    @abstractmethod
    def fits(self, kept: Kept) -> bool:
        """Whether these are samples of the kind that is drawn."""

    @abstractmethod
    def draw(self, trainer: Trainer, module: LightningModule, kept: list[Kept]) -> Figure | None:
        """The figure of at least one sample, or ``None`` where the module does not fit."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._kept, self._count = [], 0

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._count >= self.max_samples or dataloader_idx > 0 or not draws(trainer):
            return
        kept = kept_of(batch, self.max_samples - self._count)
        if kept is not None and self.fits(kept):
            self._kept.append(kept)
            self._count += len(kept.inputs[0])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept, self._kept, self._count = self._kept, [], 0
        if not kept:
            return
        with undisturbed(pl_module):
            figure = self.draw(trainer, pl_module, kept)
        if figure is not None:
            self.publish(trainer, self.figure_name, figure)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._kept, self._count = [], 0


def draws(trainer: Trainer) -> bool:
    """Whether this process is the one that draws, and has the weights to do it with."""
    return trainer.is_global_zero and not isinstance(trainer.strategy, _SHARDED)


def kept_of(batch: Any, most: int) -> Kept | None:
    """A copy of the first samples of a batch; ``None`` where it is no pair of inputs and targets, of real numbers."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return None
    inputs, targets = (_tensors(part) for part in batch)
    parts = [*inputs, *targets]
    if not inputs or not targets or any(part.ndim == 0 or part.is_complex() for part in parts):
        return None
    if len({len(part) for part in parts}) > 1 or len(parts[0]) == 0:
        return None
    copied = [part[:most].detach().clone() for part in parts]  # whoever gets the batch may change it
    return Kept(tuple(copied[: len(inputs)]), tuple(copied[len(inputs) :]))


def _tensors(values: Any) -> tuple[Tensor, ...]:
    if isinstance(values, Tensor):
        return (values,)
    parts = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else ()
    return parts if len(parts) <= 2 and all(isinstance(part, Tensor) for part in parts) else ()


@contextmanager
def undisturbed(module: LightningModule) -> Iterator[None]:
    """In evaluation mode and without gradients; afterwards modes and random generators are as they were."""
    modes = {part: part.training for part in module.modules()}
    with isolate_rng(include_cuda=module.device.type == "cuda"), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


def outputs_of(trainer: Trainer, module: LightningModule, *inputs: Tensor) -> Tensor | None:
    """The module's outputs, in doubles on the CPU; ``None`` if they are no tensor with an entry for each sample."""
    plugin = trainer.precision_plugin
    with plugin.test_step_context():
        outputs = module(*plugin.convert_input(inputs))
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != len(inputs[0]):
        return None
    return outputs.detach().cpu().double()


def unscaled(trainer: Trainer, features: Tensor) -> Tensor:
    """Features as they were before the data module standardised them, in doubles on the CPU.

    By its ``mean`` and ``std``, tensors that broadcast to a batch, as of :class:`datamodules.InMemoryDataModule`; as
    they are where there are none.
    """
    values = features.detach().cpu().double()
    data = getattr(trainer, "datamodule", None)
    mean, std = getattr(data, "mean", None), getattr(data, "std", None)
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        return values
    try:
        scaled = values * std.cpu().double() + mean.cpu().double()
    except RuntimeError:  # of other features
        return values
    return scaled if scaled.shape == values.shape else values


def from_data(trainer: Trainer, name: str) -> Any:
    """What the data module says of itself under a name; ``None`` if there is none, or it says nothing."""
    return getattr(getattr(trainer, "datamodule", None), name, None)
