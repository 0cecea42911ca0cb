"""How a checkpoint is written and read: whole or not at all, plain values, never code."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.fabric.plugins import CheckpointIO

from zoo.checkpointing.archive import ArchiveError, read_records
from zoo.checkpointing.files import CheckpointError, local_target, require_local_file, write_whole
from zoo.checkpointing.inspection import InspectionError, inspect
from zoo.checkpointing.plain import first_unsafe
from zoo.checkpointing.safetensors_files import is_safetensors, parse_safetensors
from zoo.checkpointing.sealing import SealError, is_sealed, seal
from zoo.wording import with_article

MapLocation: TypeAlias = "str | torch.device | dict[str, str] | Callable[[Any, str], Any]"
"""Where tensors go, as ``torch.load`` has it."""

_REQUIRED = ("state_dict", "pytorch-lightning_version")
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.dev|\.post)\d+)*(\+[\w.]+)?")


def read_checkpoint(path: str | PathLike[str], map_location: MapLocation = "cpu") -> dict[str, Any]:
    """The contents of a local checkpoint file, read with ``weights_only=True``.

    The file is read once. Before anything in it is unpickled, :mod:`zoo.checkpointing.inspection` sees to it that it
    holds plain values and tensors alone, and none that would not fit into a file of its size.

    Args:
        path: of the file.
        map_location: where its tensors go.

    Raises:
        CheckpointError: no such file, a URL, a damaged file, or one with anything but plain values and tensors.
    """
    local = require_local_file(path)
    contents = read_contents(local, map_location)
    missing = [key for key in _REQUIRED if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise CheckpointError(f"{local} is not a Lightning checkpoint: it has no {missing[0]!r}")
    checkpoint: dict[str, Any] = contents
    for key, fits in (("state_dict", _is_dict), ("pytorch-lightning_version", _is_version)):
        if not fits(checkpoint[key]):
            raise CheckpointError(f"{local} is not a Lightning checkpoint: its {key!r} is {checkpoint[key]!r:.100}")
    return checkpoint


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _is_version(value: object) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def read_contents(local: Path, map_location: MapLocation = "cpu") -> Any:
    """What is in a file, a checkpoint or weights of either format; see :func:`read_checkpoint`."""
    try:
        data = local.read_bytes()
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{local} cannot be read: {getattr(error, 'strerror', None) or 'too large'}") from error
    if is_safetensors(data):
        return parse_safetensors(data, str(local))
    try:
        is_sealed(data)
        inspect(read_records(data), len(data))
        return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except SealError as error:
        raise CheckpointError(f"{local} is damaged: {error}") from error
    except (ArchiveError, InspectionError) as error:
        raise CheckpointError(f"{local} is not a checkpoint that can be read safely: {error}") from error
    except Exception as error:  # torch raises a dozen different types here, from the zip reader to the unpickler
        # Torch's own words would advise to read it unsafely.
        raise CheckpointError(
            f"{local} is not a checkpoint that can be read safely: it is damaged, or holds more than plain values and "
            f"tensors ({type(error).__name__})"
        ) from error


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write a checkpoint so that at every moment the file at ``path`` is the one before or the new one, and whole.

    It is written beside its place, synced to the disk, read back, and only then renamed;
    :mod:`zoo.checkpointing.sealing` lets whoever reads it see that not a byte has changed.

    Raises:
        CheckpointError: the path is a URL, it could not be written, or holds what could never be read again; a file
            that was there before still is.
    """
    target = local_target(path)
    write_whole(seal(_pickled(dict(checkpoint), target)), target)


def _pickled(checkpoint: dict[str, Any], target: Path) -> bytes:
    buffer = io.BytesIO()
    try:
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        inspect(read_records(data), len(data))
    except Exception as error:  # what pickling raises is up to what is pickled
        found = first_unsafe(checkpoint)
        reason = f"{found[0]} is {with_article(found[1])}, not plain values and tensors" if found else str(error)
        raise CheckpointError(
            f"{target} was not written, as it could never be read again safely: {reason}; hyperparameters and what "
            "on_save_checkpoint or state_dict add must be numbers, text, tensors, or lists and dicts of these"
        ) from error
    return data


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
