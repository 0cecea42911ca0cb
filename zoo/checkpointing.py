"""What may be in a checkpoint, and how one is read: plain values and tensors, never code."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_REQUIRED = ("state_dict", "pytorch-lightning_version")
_SCALARS = (bool, int, float, str, type(None))


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that would not be safe to read."""


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """The contents of a local checkpoint file, on the CPU, read with ``weights_only=True``.

    Raises:
        CheckpointError: no such file, a URL, a damaged file, or one with anything but plain values and tensors.
    """
    local = require_local_file(path)
    contents = _read(local)
    missing = [key for key in _REQUIRED if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise CheckpointError(f"{local} is not a Lightning checkpoint: it has no {missing[0]!r}")
    checkpoint: dict[str, Any] = contents
    return checkpoint


def _read(local: Path) -> Any:
    try:
        return torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen different types here, from the zip reader to the unpickler
        # Torch's own words would advise to read it unsafely.
        raise CheckpointError(
            f"{local} is not a checkpoint that can be read safely: it is damaged, or holds more than plain values and "
            f"tensors ({type(error).__name__})"
        ) from error


def load_weights(network: AnyModule, path: str | PathLike[str]) -> AnyModule:
    """Give a network the weights in a file, and return it.

    Args:
        network: any module; changed in place.
        path: a local file, read with ``weights_only=True``: a checkpoint of a task around such a network, or the state
            dict of such a network or task that ``torch.save`` wrote.

    Raises:
        CheckpointError: no such file, a URL, a file that cannot be read safely, or weights of another network.
    """
    local = require_local_file(path)
    contents = _read(local)
    weights = contents["state_dict"] if isinstance(contents, dict) and "state_dict" in contents else contents
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if isinstance(weights, dict) and not own.keys() & weights.keys():
        prefix = "network."  # as it is called in a task
        weights = {str(name).removeprefix(prefix): value for name, value in weights.items()}
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{local} holds no weights: neither a checkpoint of a task nor a state dict")
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*own, *saved]:
        if own.get(name) != saved.get(name):
            raise CheckpointError(
                f"the weights in {local} are another network's: {name} is {saved.get(name, 'missing')} in it and "
                f"{own.get(name, 'missing')} in the network"
            )
    network.load_state_dict(weights)
    return network


def require_local_file(path: str | PathLike[str]) -> Path:
    """``path`` as a ``Path`` to an existing file; URLs and everything else raise :class:`CheckpointError`."""
    text = fspath(path)
    if "://" in text:
        raise CheckpointError(f"{text} is a URL: download the file and check where it comes from, then pass its path")
    local = Path(text)
    if not local.is_file():
        raise CheckpointError(f"there is no checkpoint file {local}")
    return local


def require_plain(hyperparameters: Mapping[str, Any]) -> None:
    """Refuse hyperparameters that a safe load could not bring back.

    Numbers, strings, booleans, ``None``, and lists, tuples and string-keyed dicts of these are plain.

    Raises:
        TypeError: names the hyperparameter and its type.
    """
    for name, value in hyperparameters.items():
        offender = _first_not_plain(value)
        if offender is not None:
            kind = f"{type(offender).__module__}.{type(offender).__qualname__}"
            raise TypeError(
                f"hyperparameter {name!r} holds a {kind}, which a checkpoint cannot bring back safely: pass a plain "
                f"number, string, boolean, tuple or dict, or name it in the class's not_hyperparameters"
            )


def _first_not_plain(value: Any) -> Any:
    # Exact types: a NumPy float is a float to isinstance, yet is pickled as a NumPy object.
    if type(value) in _SCALARS:
        return None
    if type(value) in (list, tuple):
        return next((found for item in value if (found := _first_not_plain(item)) is not None), None)
    if type(value) is dict:
        if any(type(key) is not str for key in value):
            return value
        return _first_not_plain(list(value.values()))
    return value
