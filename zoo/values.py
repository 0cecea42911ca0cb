"""Values that would spoil a run: how NaN and infinity are found, and the errors that say where they are."""

from __future__ import annotations

import cmath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LOOKED_AT = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
_HALF = {torch.float16, torch.bfloat16}


class Place(NamedTuple):
    """Where a run stands; everything counted from 0."""

    stage: str
    """``"training"``, ``"validation"`` or ``"test"``."""
    step: int
    """The optimizer steps taken so far."""
    epoch: int
    batch: int
    loader: int = 0
    """Which one of several loaders."""

    def __str__(self) -> str:
        loader = f" of loader {self.loader}" if self.loader else ""
        epoch = f" of epoch {self.epoch}" if self.stage == "training" else ""
        return f"in {self.stage} at step {self.step}, batch {self.batch}{loader}{epoch}"


class NonFiniteError(RuntimeError):
    """NaN or infinity where there must be a number."""


class NonFiniteLossError(NonFiniteError):
    """A loss became NaN or infinite; names the step and the batch.

    Args:
        value: of the loss.
        step: the optimizer steps taken before it.
        epoch: in which it was, counted from 0.
        batch: of which it is, counted from 0 in each epoch.
        kind: whose loss it is, ``"training"`` or ``"validation"``.
    """

    def __init__(
        self, value: float, step: int, *, epoch: int | None = None, batch: int | None = None, kind: str = "training"
    ) -> None:
        self.value = value
        self.step = step
        self.epoch = epoch
        self.batch = batch
        self.kind = kind
        where = "" if batch is None else f", batch {batch}" + ("" if epoch is None else f" of epoch {epoch}")
        super().__init__(
            f"the {kind} loss became {value} at step {step}{where}: lower the learning rate or clip the gradients "
            "(gradient_clip_val=1.0), and look for extreme values, or labels that do not fit, in the data"
        )


class NonFiniteBatchError(NonFiniteError):
    """A batch holds NaN or infinity; names the step, the batch, the field and, where it can be told, the sample.

    Args:
        field: which part of the batch: ``"features"``, ``"targets"``, or the key or index that leads to it.
        place: where the run stands.
        values: the values of the field, if they are still there.
    """

    def __init__(self, field: str, place: Place, values: Tensor | None = None) -> None:
        self.field = field
        self.place = place
        self.sample: int | None = None
        subject = f"the {field} hold" if field in {"features", "targets"} else f"{field} holds"
        what = "NaN or infinity"
        if values is not None and values.layout == torch.strided and not values.is_nested:
            index = (~values.isfinite()).nonzero()[0].tolist()
            what = str(values[tuple(index)].item())
            if index:
                self.sample = index[0]
                what += f" in sample {self.sample} of the batch" + (f", at {tuple(index[1:])}" if index[1:] else "")
        super().__init__(
            f"{subject} {what} ({place}): remove such samples from the data, or fill them in, and look at what "
            "scales or augments them"
        )


class NonFiniteWeightsError(NonFiniteError):
    """An update made weights NaN or infinite; names the tensor and the step.

    Args:
        name: of the parameter or buffer.
        step: the optimizer steps taken so far.
    """

    def __init__(self, name: str, step: int) -> None:
        self.name = name
        self.step = step
        super().__init__(
            f"{name} is no longer finite after step {step}, and such weights are not saved: lower the learning rate or "
            "clip the gradients (gradient_clip_val=1.0)"
        )


def is_looked_at(tensor: Tensor) -> bool:
    """Whether a tensor can hold NaN or infinity at all, in one of the types that this module knows."""
    return tensor.dtype in _LOOKED_AT


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; waits for its device.

    A sum is not finite if any of its terms is not, and takes a tenth of the time of looking at each; only where it is
    not, which may be an overflow, is each looked at.
    """
    if not is_looked_at(tensor):
        return True
    values = _stored(tensor.detach())
    total = values.sum(dtype=torch.float32) if values.dtype in _HALF else values.sum()
    return cmath.isfinite(total.item()) or bool(values.isfinite().all())


def finite_flag(tensor: Tensor) -> Tensor:
    """0 if a tensor holds neither NaN nor infinity, else NaN, as a tensor on its device, which is not waited for."""
    values = _stored(tensor.detach())
    # Zero times a number is zero, and NaN of all that is none: unlike a sum of the values it cannot overflow.
    return ((torch.view_as_real(values) if values.is_complex() else values) * 0).sum(dtype=torch.float32)


def _stored(tensor: Tensor) -> Tensor:
    """The values that a sparse or nested tensor stores; a dense one as it is."""
    if tensor.layout == torch.strided and not tensor.is_nested:
        return tensor
    return tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with NaN or infinity in it."""
    return next((name for name, tensor in tensors if not is_finite(tensor)), None)


def named_tensors(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a batch, in tuples, lists, mappings and dataclasses however deep, with their names.

    The first two entries of a batch are its ``features`` and ``targets``, a tensor alone is its features.

    Example:
        >>> batch = ({"image": torch.zeros(2, 3), "size": torch.zeros(2)}, torch.zeros(2), torch.ones(2))
        >>> [name for name, _ in named_tensors(batch)]
        ["features['image']", "features['size']", 'targets', 'batch[2]']
    """
    if isinstance(batch, Tensor):
        yield name or "features", batch
    elif isinstance(batch, tuple | list):
        names = getattr(batch, "_fields", None)
        for index, part in enumerate(batch):
            if names is not None:
                key = f"{name or 'batch'}.{names[index]}"
            elif not name and index < 2:
                key = ("features", "targets")[index]
            else:
                key = f"{name or 'batch'}[{index}]"
            yield from named_tensors(part, key)
    elif isinstance(batch, Mapping):
        for key, part in batch.items():
            yield from named_tensors(part, f"{name or 'batch'}[{key!r}]")
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from named_tensors(getattr(batch, field.name), f"{name or 'batch'}.{field.name}")
