"""Data modules for data that fit in memory."""

from __future__ import annotations

import os
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Generator, Tensor

from datamodules.errors import DataError, check_positive
from datamodules.loader import Augment, BatchLoader, EpochLoader, Preprocess
from datamodules.padded import Padded, Samples

ArrayLike = Tensor | npt.NDArray[Any] | Padded

_CHUNK = 4096  # samples looked at at once, so that checks need little memory beside the data


@dataclass(frozen=True)
class Split:
    """Samples of one purpose.

    Args:
        features: ``(samples, ...)``.
        targets: ``(samples, ...)``.
    """

    features: Samples
    targets: Samples

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set; no sample is in two of them."""

    train: Split
    val: Split
    test: Split


class Standardize:
    """Subtracts a mean and divides by a standard deviation.

    Args:
        mean: broadcastable to a batch of features.
        std: likewise, greater than zero.

    Shape:
        ``(batch, ...)`` any type → the same shape, float32, in memory of its own.
    """

    copies = True

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean = mean.float()
        self.std = std.float()

    def __call__(self, features: Tensor) -> Tensor:
        if self.mean.device != features.device:
            self.mean, self.std = self.mean.to(features.device), self.std.to(features.device)
        # A copy in any case: in place would be on the data themselves, where a batch is a view of them.
        return features.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)


class InMemoryDataModule(LightningDataModule):
    """The common part: a subclass says where the samples come from, this class checks, standardises and batches.

    Args:
        batch_size: samples a training batch.
        eval_batch_size: samples a batch of validation, test and prediction.
        standardize: subtract the mean and divide by the standard deviation of the training split.
        augment: works on whole training batches, see :data:`datamodules.loader.Augment`.
        drop_last: leave out the last training batch of an epoch if it is not full. Nothing is ever left out in
            evaluation.
        group_by_length: put samples of like length into the same training batches, which saves padding; for features
            that are :class:`datamodules.Padded`.
        seed: of the split, the order and the augmentation; ``None`` takes that of ``seed_everything``, else 0.

    Raises:
        DataError: from the constructor, values out of range; from ``setup``, data that cannot be used.
    """

    #: What the data are called in reports.
    dataset_name = "tensors"

    #: Number of classes, where the targets are class indices.
    num_classes: int | None = None

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 1000,
        standardize: bool = False,
        augment: Augment | None = None,
        drop_last: bool = True,
        seed: int | None = None,
        group_by_length: bool = False,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size, eval_batch_size=eval_batch_size)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.standardize = standardize
        self.augment = augment
        self.drop_last = drop_last
        self.group_by_length = group_by_length
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        self._splits: Splits | None = None
        self._checksums: dict[str, int] | None = None

    @abstractmethod
    def load_splits(self) -> Splits:
        """The samples; called once, from ``setup``."""

    @property
    def splits(self) -> Splits:
        """The samples of each split, unscaled; there after ``setup``."""
        if self._splits is None:
            raise RuntimeError(f"{type(self).__name__}: call setup() first")
        return self._splits

    @property
    def num_samples_by_split(self) -> dict[str, int]:
        """Samples of an epoch of each split; there after ``setup``."""
        splits = self.splits
        return {"train": self.training_samples(splits), "val": len(splits.val), "test": len(splits.test)}

    def training_samples(self, splits: Splits) -> int:
        """Samples of a training epoch."""
        return len(splits.train)

    @property
    def description(self) -> str:
        """One line: the name, the size of each split, the shape of a sample, the classes."""
        sizes = ", ".join(f"{size:,} {name}" for name, size in self.num_samples_by_split.items())
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"{self.dataset_name}: {sizes}; samples of {self.sample_in_words()}{classes}"

    def sample_in_words(self) -> str:
        """The shape of a sample."""
        samples = self.splits.train.features
        shape = list(map(str, samples.shape[1:]))
        if isinstance(samples, Padded):
            shortest, longest = (int(bound) for bound in samples.lengths.aminmax())
            shape[samples.dim - 1] = str(longest) if shortest == longest else f"({shortest} to {longest})"
        return "x".join(shape) or "1"

    def setup(self, stage: str | None = None) -> None:
        if self._splits is not None:
            return
        splits = self.load_splits()
        for name in ("train", "val", "test"):
            check_samples(f"the {name} split", getattr(splits, name))
            check_labels(f"the {name} split", getattr(splits, name).targets, self.num_classes)
        training = self.training_samples(splits)
        if self.drop_last and training < self.batch_size:
            raise DataError(
                f"the training split has {training} samples, fewer than one batch of {self.batch_size}: "
                f"lower batch_size to at most {training}, or use more data"
            )
        if self.num_classes is not None and len(splits.train) < self.num_classes:
            raise DataError(
                f"the training split has {len(splits.train)} samples, fewer than the {self.num_classes} classes that "
                "its labels count: use more data, or floating-point targets for a regression"
            )
        if self.standardize:
            self.mean, self.std = feature_statistics(splits.train.features)
        self._splits = splits

    def _loader(self, split: Split, *, train: bool) -> BatchLoader:
        return BatchLoader(
            split.features,
            split.targets,
            self.batch_size if train else self.eval_batch_size,
            shuffle=train,
            drop_last=train and self.drop_last,
            group_by_length=train and self.group_by_length,
            seed=self.seed,
            augment=self.augment if train else None,
            preprocess=self.preprocess(),
            device=self._data_device(),
        )

    def preprocess(self) -> Preprocess | None:
        """What is done with the features of every batch: standardised, if they are to be."""
        return None if self.mean is None or self.std is None else Standardize(self.mean, self.std)

    def _data_device(self) -> torch.device | None:
        """The GPU in use, if all splits together take less than a quarter of its free memory."""
        if self.trainer is None or self.trainer.strategy.root_device.type != "cuda":
            return None
        device = self.trainer.strategy.root_device
        splits = (self.splits.train, self.splits.val, self.splits.test)
        size = sum(split.features.nbytes + split.targets.nbytes for split in splits)
        return device if size < torch.cuda.mem_get_info(device)[0] / 4 else None

    def train_dataloader(self) -> EpochLoader:
        return self._loader(self.splits.train, train=True)

    def val_dataloader(self) -> BatchLoader:
        return self._loader(self.splits.val, train=False)

    def test_dataloader(self) -> BatchLoader:
        return self._loader(self.splits.test, train=False)

    def predict_dataloader(self) -> BatchLoader:
        """The test split, in order."""
        return self._loader(self.splits.test, train=False)

    def state_dict(self) -> dict[str, Any]:
        """What the data were: name, statistics they were standardised with, and the checksum of each split."""
        return {"dataset": self.dataset_name, "mean": self.mean, "std": self.std, "checksums": dict(self.checksums)}

    @property
    def checksums(self) -> dict[str, int]:
        """The CRC-32 of the features and targets of each split, as they are before scaling; there after ``setup``.

        The same for every batch size, device and number of processes. Computed once, when first asked for.
        """
        if self._checksums is None:
            self._checksums = {
                name: checksum(split.features, split.targets)
                for name, split in ((name, getattr(self.splits, name)) for name in ("train", "val", "test"))
            }
        return self._checksums

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a resumed run goes on with the data it began with; a test may be on any data.

        Raises:
            DataError: it does not.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.setup()
        before = state_dict["dataset"]
        if before != self.dataset_name:
            raise DataError(f"the checkpoint was trained on {before!r}, but the data at hand are {self.dataset_name!r}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            saved = state_dict[name]
            same = value is None if saved is None else value is not None and torch.equal(saved, value)
            if not same:
                raise DataError(
                    f"the {name} of the training split differs from that in the checkpoint: the data, the seed or the "
                    "split have changed since"
                )
        # Checkpoints of earlier versions have none.
        for name, saved in state_dict.get("checksums", {}).items():
            if saved != self.checksums.get(name):
                raise DataError(
                    f"the samples of the {name} split are not those that the checkpoint was trained with: the data, "
                    "the seed or the split have changed since; give the same again, or begin a new run"
                )


class TensorDataModule(InMemoryDataModule):
    """Any features and targets, split into training, validation and test, and batched.

    Args:
        features: ``(samples, ...)`` tensor or NumPy array, or :class:`Padded` samples of different lengths; 64-bit
            floats become 32-bit.
        targets: likewise; integers become int64 (class indices), 64-bit floats 32-bit.
        val_size: samples for validation: a share in (0, 1), or a number.
        test_size: samples for the test, likewise; ignored if ``test`` is given.
        test: a test set of its own, ``(features, targets)``, used whole and in order.
        batch_size: see :class:`InMemoryDataModule`, as for the arguments below.
        eval_batch_size: see there.
        standardize: see there; each feature (for images each channel) by itself.
        augment: see there.
        drop_last: see there.
        seed: see there.
        group_by_length: see there.

    Raises:
        DataError: empty data, lengths that differ, NaN or infinity, a split that would be empty, a training split
            smaller than a batch, or a constant feature when standardising.

    Example:
        >>> data = TensorDataModule(torch.randn(100, 4), torch.randint(3, (100,)), batch_size=16)
        >>> data.setup()
        >>> len(data.splits.train), len(data.splits.val), len(data.splits.test)
        (80, 10, 10)
    """

    def __init__(
        self,
        features: ArrayLike,
        targets: ArrayLike,
        *,
        val_size: int | float = 0.1,
        test_size: int | float = 0.1,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 1000,
        standardize: bool = False,
        augment: Augment | None = None,
        drop_last: bool = True,
        seed: int | None = None,
        group_by_length: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, standardize, augment, drop_last, seed, group_by_length)
        if group_by_length and not isinstance(features, Padded):
            raise DataError("group_by_length needs samples of different lengths, given as Padded")
        self._data = as_split(features, targets)
        self._test = None if test is None else as_split(*test)
        self.val_size = val_size
        self.test_size = test_size
        classes = [part.targets for part in (self._data, self._test) if part is not None and len(part)]
        labels = [part for part in classes if isinstance(part, Tensor) and part.dtype == torch.int64 and part.ndim == 1]
        if classes and len(labels) == len(classes):
            lowest = min(int(part.min()) for part in labels)
            if lowest < 0:
                raise DataError(f"label {lowest} is negative: class indices count from 0")
            self.num_classes = 1 + max(int(part.max()) for part in labels)

    def load_splits(self) -> Splits:
        check_samples("the data", self._data)  # before they are split, so that an error names a sample as it was given
        sizes = [split_size("val_size", self.val_size, len(self._data))]
        if self._test is None:
            sizes.append(split_size("test_size", self.test_size, len(self._data)))
        rest, *parts = random_split(self._data, sizes, self.seed)
        return Splits(train=rest, val=parts[0], test=self._test if self._test is not None else parts[1])


def as_split(features: ArrayLike, targets: ArrayLike) -> Split:
    """Tensors or arrays as a :class:`Split`, in the types that networks and losses take."""
    return Split(_as_samples("features", features), _as_samples("targets", targets, labels=True))


def _as_samples(name: str, values: ArrayLike, *, labels: bool = False) -> Samples:
    if isinstance(values, Padded):
        return Padded(_as_tensor(name, values.values, labels=labels), values.lengths, values.dim, values.labels)
    return _as_tensor(name, values, labels=labels)


def _as_tensor(name: str, values: object, *, labels: bool = False) -> Tensor:
    if isinstance(values, np.ndarray):
        try:
            # Torch takes neither another byte order, nor an array that may not be written to, nor negative strides.
            values = values.astype(values.dtype.newbyteorder("="), copy=not values.flags.writeable)
            values = torch.from_numpy(np.ascontiguousarray(values))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name} of NumPy type {values.dtype} cannot become a tensor: convert them first"
            ) from error
    if not isinstance(values, Tensor):
        raise DataError(f"{name} must be a tensor or a NumPy array, got {type(values).__name__}")
    if values.ndim == 0:
        raise DataError(f"{name} must have a first dimension that counts samples, got a single number")
    if values.dtype == torch.float64:
        return values.float()
    if labels and not values.is_floating_point() and values.dtype != torch.bool:
        return values.long()
    return values


def split_size(name: str, size: float, total: int) -> int:
    """A share in (0, 1) or a number of samples, as a number of samples out of ``total``.

    Raises:
        DataError: it is negative, or nothing would be left, or the part would be empty.
    """
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise DataError(f"{name} must be a share between 0 and 1 or a number of samples, got {size!r}")
    share = isinstance(size, float) and not size.is_integer()
    if (share and not 0.0 < size < 1.0) or (size < 1 and not share):
        raise DataError(f"{name} must be a share between 0 and 1 or a number of samples, got {size!r}")
    count = round(size * total) if share else int(size)
    if not 1 <= count < total:
        raise DataError(f"{name}={size!r} makes {count} of {total} samples: this part and the rest must not be empty")
    return count


def random_split(data: Split, sizes: Sequence[int], seed: int) -> list[Split]:
    """The rest and parts of the given sizes, drawn without overlap by ``seed``; each keeps the order of the data."""
    if len(data.features) != len(data.targets):
        raise DataError(
            f"there are {len(data.features)} features but {len(data.targets)} targets: each sample needs both"
        )
    rest = len(data) - sum(sizes)
    if rest < 1:
        raise DataError(f"of {len(data)} samples {sum(sizes)} are for validation and test: none are left for training")
    order = torch.randperm(len(data), generator=Generator().manual_seed(seed))
    chosen = [part.sort().values for part in torch.split(order, [rest, *sizes])]
    return [Split(data.features[part], data.targets[part]) for part in chosen]


def check_samples(name: str, samples: Split) -> None:
    """Raise a :class:`DataError` if there are no samples, or unpaired ones, or NaN or infinity in them."""
    if len(samples.features) != len(samples.targets):
        raise DataError(
            f"there are {len(samples.features)} features but {len(samples.targets)} targets in {name}: "
            "each sample needs both"
        )
    if len(samples) == 0:
        raise DataError(f"there is not a single sample: {name} is empty")
    for field in ("features", "targets"):
        found: Samples = getattr(samples, field)
        values = found.values if isinstance(found, Padded) else found
        if not (values.is_floating_point() or values.is_complex()):
            continue
        for start in range(0, len(values), _CHUNK):
            finite = values[start : start + _CHUNK].isfinite()
            if not finite.all():
                where = (~finite).nonzero()[0].tolist()
                where[0] += start
                place = f", at {tuple(where[1:])}" if len(where) > 1 else ""
                raise DataError(
                    f"the {field} of {name} hold {values[tuple(where)].item()} in sample {where[0]}{place}: "
                    "remove such samples, or fill them in, first"
                )


def check_labels(name: str, targets: Samples, num_classes: int | None) -> None:
    """Raise a :class:`DataError` if class indices are not from 0 to ``num_classes - 1``."""
    if num_classes is None or isinstance(targets, Padded) or targets.dtype != torch.int64 or targets.ndim != 1:
        return
    wrong = (targets < 0) | (targets >= num_classes)
    if wrong.any():
        sample = int(wrong.nonzero()[0])
        raise DataError(
            f"the targets of {name} hold label {int(targets[sample])} in sample {sample}, outside "
            f"0..{num_classes - 1}: remove such samples, or correct num_classes"
        )


def checksum(*samples: Samples) -> int:
    """The CRC-32 of samples, of their types and shapes."""
    crc = 0
    for part in samples:
        for values in (part.values, part.lengths) if isinstance(part, Padded) else (part,):
            crc = zlib.crc32(f"{values.dtype} {tuple(values.shape)}".encode(), crc)
            for start in range(0, len(values), _CHUNK):
                chunk = values[start : start + _CHUNK].detach().cpu().contiguous()
                # As bytes, because NumPy does not have all of the types of torch.
                crc = zlib.crc32(chunk.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def feature_statistics(features: Samples) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, or of each channel of images, over the samples and valid steps.

    Shape:
        ``(samples, n)`` and ``(samples, steps, n)`` → two of ``(n,)``; ``(samples, channels, height, width)`` → two of
        ``(channels, 1, 1)``.

    Raises:
        DataError: a feature or channel is constant.
    """
    if isinstance(features, Padded):
        return _padded_statistics(features)
    if features.ndim == 3:
        return feature_statistics(features.flatten(0, 1))
    axes = [axis for axis in range(features.ndim) if axis != 1]
    shape = features.shape[1:2] + (1,) * (features.ndim - 2)
    total = torch.zeros(features.shape[1:2], dtype=torch.float64, device=features.device)
    squares = torch.zeros_like(total)
    # 32 bits are exact enough for a chunk of bytes, and four times as fast.
    precision = torch.float32 if features.dtype == torch.uint8 else torch.float64
    # Sums of squares lose digits where the mean is large, so they are taken about the first sample's mean.
    pivot = features[:1].to(precision).mean(dim=axes, keepdim=True)
    for start in range(0, len(features), _CHUNK):
        chunk = features[start : start + _CHUNK].to(precision) - pivot
        total += chunk.sum(dim=axes)
        squares += chunk.square().sum(dim=axes)
    count = features.numel() / max(1, total.numel())
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    constant = (std <= 1e-12 * (1 + mean.abs())).nonzero()
    if len(constant):
        names = constant[0].tolist()
        raise DataError(
            f"feature {names[0] if names else 0} is constant over the training split and cannot be standardised: "
            "remove it, or use standardize=False"
        )
    mean = mean + pivot.reshape(mean.shape)
    return mean.float().reshape(shape).cpu(), std.float().reshape(shape).cpu()


def _padded_statistics(features: Padded) -> tuple[Tensor, Tensor]:
    """As :func:`feature_statistics`, of features that are those of axis 1, or, where that counts steps, of the last."""
    values = features.values.unsqueeze(-1) if features.values.ndim == 2 else features.values
    axis = values.ndim - 1 if features.dim == 1 else 1
    valid = Padded(values, features.lengths, features.dim).valid.to(values.device).expand(values.shape)
    mean, std = feature_statistics(values.movedim(axis, -1)[valid.movedim(axis, -1)[..., 0]])
    shape = (-1,) + (1,) * (values.ndim - 1 - axis)
    return mean.reshape(shape), std.reshape(shape)
