"""MNIST and its relatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.augment import RandomAffine, RandomElastic, RandomShift
from datamodules.base import InMemoryDataModule, Split, Splits, random_split, split_size
from datamodules.errors import DataError
from datamodules.loader import Augment, Preprocess
from datamodules.mnist_files import MNISTFiles
from datamodules.padded import dense

DatasetName = Literal["MNIST", "FashionMNIST", "KMNIST", "EMNIST", "digits"]
DATASETS: tuple[DatasetName, ...] = ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "digits")

Source = Literal["auto", "local", "download"]
SOURCES: tuple[Source, ...] = ("auto", "local", "download")

AugmentName = Literal["shift", "affine", "elastic", "elastic_affine"]
_AUGMENTATIONS: dict[str, Callable[[], Augment]] = {
    "shift": RandomShift,
    "affine": RandomAffine,
    "elastic": RandomElastic,
    # Less of either than alone: so mnist_convnet_elastic had the fewest errors in validation.
    "elastic_affine": lambda: RandomElastic(14.0, affine=RandomAffine(7.0, translate=0.04, scale=0.08, shear=4.0)),
}

_SIZE = 28
_DIGITS_TEST_SIZE = 360
_DIGITS_LARGEST_VAL = 180
_DIGITS_REPEATS = 10


class FallbackWarning(UserWarning):
    """The data asked for could not be had, and others took their place."""


class MNISTDataModule(InMemoryDataModule):
    """MNIST, Fashion-MNIST, KMNIST or EMNIST digits: 10 classes, one channel, held in memory as bytes.

    The test set is the canonical one, in its order. Validation is ``val_size`` images drawn by the seed out of the
    training set, so MNIST comes as 55,000 / 5,000 / 10,000. Pixels are standardised with mean and standard deviation
    of the training split.

    With ``source="auto"`` the bundled digits of scikit-learn take MNIST's place where neither the disk nor the
    network has the data: 1,797 real handwritten digits (Alpaydin and Kaynak 1998; the first 1,437 for training and
    validation, the last 360 for the test), scaled up from 8x8, of which an epoch sees each ten times.
    ``dataset_name`` then is ``"digits"``.

    Args:
        data_dir: the folder of all data sets, in torchvision's layout.
        dataset: ``"MNIST"``, ``"FashionMNIST"``, ``"KMNIST"``, ``"EMNIST"`` (its digits), or ``"digits"``, the
            bundled ones, which need neither disk nor network.
        source: ``"auto"``: intact local files, else a download, else the bundled digits; ``"local"``: local files,
            else an error; ``"download"``: local files, else a download, else an error.
        batch_size: images a training batch.
        eval_batch_size: images a batch of validation, test and prediction.
        val_size: images drawn from the training set for validation; a number, or a share in (0, 1).
        image_size: height and width; larger than 28 is padded with background (32 as in LeNet-5's paper), smaller is
            scaled down.
        augment: ``"shift"`` (up to one pixel), ``"affine"``, ``"elastic"``, ``"elastic_affine"`` (less of both), a
            class of :mod:`datamodules.augment` with its arguments, any other callable (see
            :data:`datamodules.loader.Augment`), or ``None``.
        drop_last: leave out the last training batch of an epoch if it is not full.
        seed: of the split, the order and the augmentation; ``None`` takes that of ``seed_everything``, else 0.
        one_hot: targets as ``(samples, 10)`` float32, one where the class is and zero elsewhere, for a regression.
        as_rows: images as sequences, ``(batch, image_size, image_size)``: from top to bottom a row of pixels a step.
        train_size: images drawn by the seed out of those for training, to see what can be learnt from few; a number, or
            a share in (0, 1); ``None`` takes all. Validation and test are the same whatever it is.

    Raises:
        DataError: from the constructor, a value out of range; from ``setup``, data that are missing or damaged.
    """

    num_classes = 10

    def __init__(
        self,
        data_dir: str = "data",
        dataset: DatasetName = "MNIST",
        source: Source = "auto",
        batch_size: int = 256,
        eval_batch_size: int = 1000,
        val_size: int | float = 5000,
        image_size: int = 28,
        augment: AugmentName | RandomShift | RandomAffine | RandomElastic | Augment | None = None,
        drop_last: bool = True,
        seed: int | None = None,
        one_hot: bool = False,
        as_rows: bool = False,
        train_size: int | float | None = None,
    ) -> None:
        _check_choice("dataset", dataset, DATASETS)
        _check_choice("source", source, SOURCES)
        if isinstance(image_size, bool) or not isinstance(image_size, int) or not 8 <= image_size <= 256:
            raise DataError(f"image_size must be an integer from 8 to 256, got {image_size!r}")
        split_size("val_size", val_size, 60_000)
        if train_size is not None:
            split_size("train_size", train_size, 60_000)
        if isinstance(augment, str):
            _check_choice("augment", augment, tuple(_AUGMENTATIONS))
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            standardize=True,
            augment=_AUGMENTATIONS[augment]() if isinstance(augment, str) else augment,
            drop_last=drop_last,
            seed=seed,
        )
        self.data_dir = Path(data_dir)
        self.dataset = dataset
        self.source = source
        self.val_size = val_size
        self.image_size = image_size
        self.one_hot = one_hot
        self.as_rows = as_rows
        self.train_size = train_size
        self.dataset_name: str = dataset
        self._prepared: tuple[Split, Split] | None = None
        # Plain values only: they are saved in every checkpoint.
        self.save_hyperparameters(
            {
                "data_dir": str(data_dir),
                "dataset": dataset,
                "source": source,
                "batch_size": batch_size,
                "eval_batch_size": eval_batch_size,
                "val_size": val_size,
                "image_size": image_size,
                "augment": augment if augment is None or isinstance(augment, str) else type(augment).__name__,
                "one_hot": one_hot,
                "as_rows": as_rows,
                "train_size": train_size,
                "drop_last": drop_last,
                "seed": self.seed,
            },
            logger=False,
        )

    def prepare_data(self) -> None:
        """Bring the files to disk and check them, in one process of each machine."""
        if self._splits is None:
            self._prepared = self._raw()

    def load_splits(self) -> Splits:
        # What prepare_data has read and checked in this process need not be read and checked again.
        train, test = self._prepared or self._raw()
        self._prepared = None
        val_size = self.val_size
        repeats = 1
        if self.dataset_name == "digits":
            val_size = min(val_size, _DIGITS_LARGEST_VAL)
            repeats = _DIGITS_REPEATS
        rest, val = random_split(train, [split_size("val_size", val_size, len(train))], self.seed)
        del train  # twice in memory otherwise
        if self.train_size is not None:
            _, rest = random_split(rest, [split_size("train_size", self.train_size, len(rest))], self.seed)
        if repeats > 1:
            rest = Split(dense(rest.features).repeat(repeats, 1, 1, 1), dense(rest.targets).repeat(repeats))
        return Splits(*(self._sized(split) for split in (rest, val, test)))

    def _sized(self, split: Split) -> Split:
        targets = dense(split.targets)
        if self.one_hot:
            targets = functional.one_hot(targets, self.num_classes).float()
        return Split(resize(dense(split.features), self.image_size), targets)

    def preprocess(self) -> Preprocess | None:
        standardize = super().preprocess()
        return _Rows(standardize) if self.as_rows and standardize else standardize

    def sample_in_words(self) -> str:
        return f"{self.image_size} rows of {self.image_size} pixels" if self.as_rows else super().sample_in_words()

    def _raw(self) -> tuple[Split, Split]:
        """Training and test set, ``(samples, 1, 28, 28)`` uint8 and ``(samples,)`` int64."""
        if self.dataset == "digits":
            return bundled_digits()
        files = MNISTFiles(self.data_dir, self.dataset, may_download=self.source != "local")
        try:
            train, test = files.load(train=True), files.load(train=False)
        except DataError as error:
            if self.source != "auto":
                raise
            warnings.warn(
                f"USING scikit-learn's 1,797 BUNDLED DIGITS INSTEAD OF {self.dataset}, of which this run's figures say "
                f"nothing: {error}",
                FallbackWarning,
                stacklevel=2,
            )
            self.dataset_name = "digits"
            return bundled_digits()
        self.dataset_name = self.dataset
        return _as_images(*train), _as_images(*test)


class _Rows:
    """Standardised images of one channel, ``(batch, 1, rows, columns)``, as sequences ``(batch, rows, columns)``."""

    def __init__(self, standardize: Preprocess) -> None:
        self.standardize = standardize

    def __call__(self, images: Tensor) -> Tensor:
        return self.standardize(images).squeeze(1)


def _as_images(images: Tensor, labels: Tensor) -> Split:
    return Split(images.unsqueeze(1), labels.long())


def bundled_digits() -> tuple[Split, Split]:
    """scikit-learn's handwritten digits as 28x28 images: training set (1,437) and test set (360), in their order."""
    from sklearn.datasets import load_digits  # takes a second, and most runs do without

    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)
    # MNIST's digits fill the middle 20 of 28 pixels.
    large = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = functional.pad(large, (4,) * 4).round().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    return (
        Split(images[:-_DIGITS_TEST_SIZE], labels[:-_DIGITS_TEST_SIZE]),
        Split(images[-_DIGITS_TEST_SIZE:], labels[-_DIGITS_TEST_SIZE:]),
    )


def resize(images: Tensor, size: int) -> Tensor:
    """Pad with zeros, or scale down, to ``size``.

    Shape:
        ``(samples, channels, height, width)`` uint8, square → ``(samples, channels, size, size)`` uint8.
    """
    before = images.shape[-1]
    if size > before:
        low = (size - before) // 2
        high = size - before - low
        return functional.pad(images, (low, high, low, high))
    if size < before:
        chunks = [
            functional.interpolate(chunk.float(), size=(size, size), mode="area").round().to(torch.uint8)
            for chunk in torch.split(images, 4096)
        ]
        return torch.cat(chunks)
    return images


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DataError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
