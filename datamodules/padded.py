"""Samples of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.errors import DataError


@dataclass(eq=False)
class PaddedBatch:
    """Padded samples and their lengths, ``values, lengths = batch``; moved to another device, the lengths stay behind.

    No tuple: of a tuple ``DistributedDataParallel`` would move each part to its GPU.

    Args:
        values: ``(batch, ...)``.
        lengths: ``(batch,)`` int64 on the CPU, where sequences are packed by them.
    """

    values: Tensor
    lengths: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.values, self.lengths))

    def pin_memory(self) -> PaddedBatch:
        """With the values in memory that a GPU reads directly; torch's ``DataLoader`` calls this."""
        return type(self)(self.values.pin_memory(), self.lengths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PaddedBatch:
        """With the values on another device; Lightning calls this."""
        return PaddedBatch(self.values.to(device, non_blocking=non_blocking), self.lengths)


class LabelBatch(PaddedBatch):
    """Sequences of labels and their lengths, all of which stay on the CPU, where they are checked and compared."""

    def pin_memory(self) -> LabelBatch:
        """Itself."""
        return self

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelBatch:
        """Itself."""
        return self


@dataclass(frozen=True, eq=False)
class Padded:
    """Samples of different lengths, padded to that of the longest; a batch of them is a :class:`PaddedBatch`.

    Args:
        values: ``(samples, ...)``, any type; what stands in the padding is never looked at, but must be finite.
        lengths: ``(samples,)`` int64 on the CPU, the valid steps of each sample, at least 1.
        dim: the dimension of ``values`` that is padded: 1 for sequences ``(samples, steps, features)``, 3 for images
            ``(samples, channels, height, width)``.
        labels: whether they are sequences of labels: these stay on the CPU, and a batch is a :class:`LabelBatch`.

    Raises:
        DataError: lengths of another number, type or device, of zero, or beyond the padded size.

    Example:
        >>> samples = Padded(torch.arange(8.0).reshape(2, 4), torch.tensor([4, 1]))
        >>> samples[1:].lengths.tolist(), tuple(samples.shape)
        ([1], (2, 4))
    """

    values: Tensor
    lengths: Tensor
    dim: int = 1
    labels: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.values, Tensor) or not isinstance(self.lengths, Tensor):
            kinds = f"{type(self.values).__name__} and {type(self.lengths).__name__}"
            raise DataError(f"values and lengths must be tensors, got {kinds}")
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or not 1 <= self.dim < self.values.ndim:
            raise DataError(
                f"dim must name a dimension of {tuple(self.values.shape)} behind the first, got {self.dim!r}"
            )
        if self.labels and self.values.device.type != "cpu":
            raise DataError(f"labels must stay on the CPU, got them on {self.values.device}: labels.cpu()")
        if self.lengths.device.type != "cpu":
            raise DataError(f"lengths must stay on the CPU, got them on {self.lengths.device}: lengths.cpu()")
        if self.lengths.dtype != torch.int64 or self.lengths.shape != self.values.shape[:1]:
            raise DataError(
                f"lengths must be of shape ({len(self.values)},) and type int64, got {tuple(self.lengths.shape)} and "
                f"{str(self.lengths.dtype).removeprefix('torch.')}"
            )
        size = self.values.shape[self.dim]
        for wrong, why in (
            (self.lengths < 1, "each sample has at least one step"),
            (self.lengths > size, f"the samples are padded to {size}"),
        ):
            if wrong.any():
                index = int(wrong.nonzero()[0])
                raise DataError(f"sample {index} has length {int(self.lengths[index])}: {why}")

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def from_list(cls, samples: Sequence[Tensor], dim: int = 1, *, labels: bool = False) -> Padded:
        """Samples that differ in one dimension, padded with zeros.

        Args:
            samples: at least one; without the dimension that counts samples.
            dim: see :class:`Padded`; of each sample the dimension before.
            labels: see there.

        Raises:
            DataError: no samples, or some that differ in more than this dimension.
        """
        others = [(*sample.shape[: dim - 1], *sample.shape[dim:]) for sample in samples]
        if not samples or len(set(others)) > 1 or samples[0].ndim < dim:
            raise DataError(f"expected samples that differ in dimension {dim - 1} alone, got {others[:3]} beside it")
        lengths = torch.tensor([sample.shape[dim - 1] for sample in samples])
        shape = list(samples[0].shape)
        shape[dim - 1] = int(lengths.max())
        values = samples[0].new_zeros(len(samples), *shape)
        for place, sample in zip(values, samples, strict=True):
            place.narrow(dim - 1, 0, sample.shape[dim - 1]).copy_(sample)
        return cls(values, lengths, dim, labels)

    def __getitem__(self, chosen: slice | Tensor) -> Padded:
        if isinstance(chosen, int):
            raise DataError(f"a single sample is a slice of length one: [{chosen}:{chosen + 1}]")
        return Padded(self.values[chosen], self.lengths[chosen], self.dim, self.labels)

    @property
    def shape(self) -> torch.Size:
        """Of the padded values."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Memory that the values take."""
        return self.values.nbytes

    @property
    def valid(self) -> Tensor:
        """Where the values are no padding: booleans that broadcast to their shape."""
        shape = [1] * self.values.ndim
        shape[self.dim] = self.values.shape[self.dim]
        steps = torch.arange(shape[self.dim]).reshape(shape)
        return steps < self.lengths.reshape(-1, *[1] * (self.values.ndim - 1))

    def to(self, device: torch.device) -> Padded:
        """With the values on another device; the lengths, and labels, stay on the CPU."""
        return self if self.labels else Padded(self.values.to(device), self.lengths, self.dim)


Samples = Tensor | Padded
"""Features, or targets: one value a sample, or as many as the sample is long."""


def dense(samples: Samples) -> Tensor:
    """The samples, which all have one size.

    Raises:
        DataError: they have not.
    """
    if isinstance(samples, Padded):
        raise DataError("padded samples of different lengths have no place here")
    return samples
