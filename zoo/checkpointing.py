"""What may be in a checkpoint, and how one is written and read: whole or not at all, plain values, never code."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from zoo.sealing import SealError, is_sealed, seal

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_REQUIRED = ("state_dict", "pytorch-lightning_version")
_SCALARS = (bool, int, float, str, type(None))


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, or that would not be safe to read."""


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
        data = local.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{local} cannot be read: {error.strerror}") from error
    try:
        is_sealed(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except SealError as error:
        raise CheckpointError(f"{local} is damaged: {error}") from error
    except Exception as error:  # torch raises a dozen different types here, from the zip reader to the unpickler
        # Torch's own words would advise to read it unsafely.
        raise CheckpointError(
            f"{local} is not a checkpoint that can be read safely: it is damaged, or holds more than plain values and "
            f"tensors ({type(error).__name__})"
        ) from error


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write a checkpoint so that at every moment the file at ``path`` is the one before or the new one, and whole.

    It is written beside its place, synced to the disk, read back, and only then renamed; :mod:`zoo.sealing` lets
    whoever reads it see that not a byte has changed.

    Raises:
        CheckpointError: it could not be written; a file that was there before still is.
    """
    target, was_there = Path(path), Path(path).is_file()
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    data = seal(buffer.getvalue())
    # In the same folder: to another file system a file cannot be renamed, only copied.
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if beside.read_bytes() != data:
                raise OSError(errno.EIO, "what was read back is not what was written")
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        kept = "; the file that was there before is untouched" if was_there else ""
        raise CheckpointError(f"{target} could not be written: {error.strerror or error}{kept}") from error
    try:
        _sync_folder(target.parent)
    except OSError as error:  # it is there, but may not be after the power fails
        raise CheckpointError(f"{target} was written, but its folder not synced: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename last, which is a change of the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SealedCheckpointIO(CheckpointIO):
    """Writes and reads the checkpoints of any ``Trainer(plugins=[SealedCheckpointIO()])``.

    See :func:`write_checkpoint` and :func:`read_checkpoint`, whatever ``weights_only`` says; checkpoints that are not
    sealed are read as well.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a file; ``storage_options`` are for other kinds of storage, and refused."""
        if storage_options is not None:
            raise TypeError("a local file has no storage_options")
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a file onto the CPU; the trainer moves what belongs elsewhere."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | PathLike[str]) -> None:
        """Remove a file, if it is there."""
        Path(path).unlink(missing_ok=True)


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
