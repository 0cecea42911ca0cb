"""A classifier of MNIST's pictures, ready for pictures from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datamodules.base import Standardize
from datamodules.digit_images import SIZE
from datamodules.mnist import resize
from experiments.checkpoints import Trained, load_trained
from zoo import MulticlassClassification, Task
from zoo.checkpointing import CheckpointError
from zoo.networks import ShapeError
from zoo.pretrained.shipped import FOLDER
from zoo.wording import with_article

_SMALLEST, _LARGEST = 8, 256


@dataclass(frozen=True)
class DigitReader:
    """A model, and how its pictures have to be prepared.

    Args:
        task: in evaluation mode.
        source: where it comes from.
        dataset: what it was trained on.
        mean: of the pixels of its training split, from 0 to 255.
        std: likewise.
        image_size: height and width of what it sees.
        as_rows: whether it reads a picture as a sequence of rows.
    """

    task: MulticlassClassification
    source: str
    dataset: str
    mean: float
    std: float
    image_size: int
    as_rows: bool

    def __post_init__(self) -> None:
        try:
            self.probabilities(torch.zeros(1, SIZE, SIZE, dtype=torch.uint8))
        except (ShapeError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.source}: the {type(self.task).__name__} takes no pictures of {self.image_size}x"
                f"{self.image_size} pixels in grey ({' '.join(str(error).split()):.200})"
            ) from error

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probability of every class.

        Shape:
            uint8 ``(batch, 28, 28)`` in MNIST's form → ``(batch, num_classes)``.
        """
        images = Standardize(torch.tensor(self.mean), torch.tensor(self.std))(
            resize(pixels.unsqueeze(1), self.image_size)
        )
        return self.task.predict_step(images.squeeze(1) if self.as_rows else images).probabilities


def load_reader(checkpoint: str, model: str | None = None, weights: Path = FOLDER) -> DigitReader:
    """The reader in a checkpoint or a directory, or of the name of shipped weights.

    Args:
        checkpoint: a path, or a name.
        model: see :func:`experiments.checkpoints.load_trained`.
        weights: the folder of the shipped weights.

    Raises:
        CheckpointError: there is none, it cannot be read, or does not hold a classifier of MNIST's pictures and how
            they were standardised.
    """
    return _of(load_trained(checkpoint, model, weights))


def _of(trained: Trained) -> DigitReader:
    task, data = _classifier(trained.task, str(trained.source)), trained.data
    if data is None or data.class_name != "MNISTDataModule" or data.mean is None or data.std is None:
        raise CheckpointError(
            f"{trained.source} does not say how the pictures that it was trained on were standardised, without which "
            "any answer would be a guess: it was not trained on an MNISTDataModule"
        )
    size, as_rows = data.arguments.get("image_size", SIZE), data.arguments.get("as_rows", False)
    is_form = type(size) is int and _SMALLEST <= size <= _LARGEST and type(as_rows) is bool
    if not is_form or data.mean.numel() != 1 or data.std.numel() != 1 or not data.std > 0:
        raise CheckpointError(f"{trained.source} says nothing usable of the pictures that it was trained on")
    return DigitReader(task, str(trained.source), data.dataset, float(data.mean), float(data.std), size, as_rows)


def _classifier(task: Task, source: str) -> MulticlassClassification:
    if not isinstance(task, MulticlassClassification):
        raise CheckpointError(
            f"{source} holds {with_article(type(task).__name__)}, which does not tell classes of pictures apart"
        )
    return task


def best(probabilities: Tensor, count: int = 3) -> Sequence[tuple[int, float]]:
    """The most probable classes of one picture and their probabilities, the best one first."""
    found = probabilities.topk(min(count, len(probabilities)))
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))
