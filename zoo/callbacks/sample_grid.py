"""The images that a model learns from, as it sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks.figure import FigureCallback
from zoo.callbacks.figure_of_test import Kept, draws, kept_of
from zoo.figures.images import sample_grid


class SampleGrid(FigureCallback):
    """Draws ``samples.png`` at the end of a fit: images of its first training batch, augmented and scaled, with labels.

    Of that batch a few images are copied before the module gets it, as it gets it; nothing is drawn from a loader or a
    random generator, so that a run is the same to the bit with and without this callback. It has no part in any other
    step.

    For batches of inputs and targets: images ``(batch, channels, height, width)`` or ``(batch, height, width)``, or
    images of any width padded to one, with their widths ``(batch,)``. Targets are class indices, one-hot rows, or
    labels ``(batch, longest)`` with their lengths, written in ``module.alphabet`` where there is one. Of anything else
    nothing is drawn.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
        num_images: images that are shown, of a batch that has them.

    Raises:
        ValueError: ``num_images`` below 1.
    """

    def __init__(self, title: str | None = None, directory: str | Path | None = None, num_images: int = 30) -> None:
        super().__init__(title, directory)
        if isinstance(num_images, bool) or not isinstance(num_images, int) or num_images < 1:
            raise ValueError(f"num_images must be a whole number of at least 1, got {num_images!r}")
        self.num_images = num_images
        self._kept: Kept | None = None
        self._has_looked = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._kept, self._has_looked = None, False
        if draws(trainer):
            # A hook of this object that is there until it was called: a method of the class would cost at every step.
            vars(self)["on_train_batch_start"] = self._look

    def _look(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._look_away()
        if not self._has_looked:  # a loop may have noted the hook for its epoch
            self._has_looked, self._kept = True, kept_of(batch, self.num_images)

    def _look_away(self) -> None:
        vars(self).pop("on_train_batch_start", None)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look_away()
        kept, self._kept = self._kept, None
        if kept is None or not _is_images(kept.inputs[0]):
            return
        images = [_image(kept, index).numpy() for index in range(len(kept.inputs[0]))]
        names = [_name(kept.targets, index, getattr(pl_module, "alphabet", None)) for index in range(len(images))]
        title = self.title_of(trainer, "training images as the model sees them")
        self.publish(trainer, "samples", sample_grid(title, images, names, "value of a pixel, as the model gets it"))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._look_away()
        self._kept = None


def _is_images(inputs: Tensor) -> bool:
    return inputs.ndim in (3, 4) and min(inputs.shape[-2:]) > 1


def _image(kept: Kept, index: int) -> Tensor:
    """``(channels, height, width)``, without its padding."""
    image = kept.inputs[0][index].cpu().double().nan_to_num(0.0, 0.0, 0.0)
    image = image[None] if image.ndim == 2 else image
    return image if len(kept.inputs) == 1 else image[:, :, : max(1, int(kept.inputs[1][index]))]


def _name(targets: tuple[Tensor, ...], index: int, alphabet: object) -> str:
    """What a target says: a class, a text, or nothing that fits above an image."""
    target = targets[0][index].cpu()
    if len(targets) == 2 and target.ndim == 1:
        labels = target[: int(targets[1][index])].tolist()
        if isinstance(alphabet, str) and all(0 < label <= len(alphabet) for label in labels):
            return "".join(alphabet[label - 1] for label in labels)
        return " ".join(map(str, labels))
    if target.ndim == 1 and target.is_floating_point() and len(target) > 1:
        return str(int(target.argmax())) if torch.equal(target.sort().values[-2:], target.new_tensor([0, 1])) else ""
    if target.numel() != 1:
        return ""
    return f"{target.item():.3g}" if target.is_floating_point() else str(int(target))
