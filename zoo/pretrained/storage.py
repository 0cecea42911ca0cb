"""Weights in less memory than they are computed with, for files that many carry along.

Vectors stay as they are: biases, and the scales, shifts and statistics of norms, which are few. Matrices and kernels
are kept in 16 bits, or in 8 bits with a scale for each row, by which the largest of the row becomes 127. A file says
itself which: a tensor of 8-bit integers has its scales beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.networks.checks import check_choice
from zoo.pretrained.forms import PretrainedError

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)

_SCALE = ".scale"
_LARGEST = 127
_FEWEST = 4096  # values of a tensor that are worth scales of their own


def compact(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as they are stored; :func:`expand` brings them back, rounded.

    Args:
        weights: by name, finite.
        storage: ``"float32"`` as they are, ``"float16"``, or ``"int8"``.

    Raises:
        ValueError: an unknown storage.
        PretrainedError: a weight is too large for 16 bits.
    """
    check_choice("storage", storage, STORAGES)
    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        if storage == "float32" or not value.is_floating_point() or value.ndim < 2:
            stored[name] = value
        elif storage == "int8" and value.numel() >= _FEWEST:
            rows = value.float().flatten(1)
            scales = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST
            stored[name] = (rows / scales[:, None]).round().clamp(-_LARGEST, _LARGEST).to(torch.int8).reshape_as(value)
            stored[name + _SCALE] = scales
        else:
            stored[name] = value.to(torch.float16)
            if not stored[name].isfinite().all():
                raise PretrainedError(f"{name} holds numbers that are too large for 16 bits: store it in float32")
    return stored


def expand(stored: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Stored weights as they are computed with, in 32 bits.

    Args:
        stored: by name, such as out of a file that anybody wrote.
        source: what the file is called in messages.

    Raises:
        PretrainedError: integers without scales, or scales that do not fit.
    """
    weights: dict[str, Tensor] = {}
    for name, value in stored.items():
        if value.dtype in (torch.float16, torch.bfloat16):
            weights[name] = value.float()
        elif value.dtype == torch.int8:
            scales = stored.get(name + _SCALE)
            fits = scales is not None and scales.dtype == torch.float32 and scales.shape == value.shape[:1]
            if scales is None or not fits or value.ndim < 2:
                raise PretrainedError(f"{source}: {name} is of 8-bit integers, without the scales that belong to them")
            weights[name] = value.float() * scales.reshape(-1, *[1] * (value.ndim - 1))
        elif not (name.endswith(_SCALE) and _is_scaled(stored.get(name.removesuffix(_SCALE)))):
            weights[name] = value
    return weights


def _is_scaled(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.int8
