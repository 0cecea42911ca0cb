"""The weights of a network in a safetensors file, a format that holds tensors and nothing else.

Format: https://huggingface.co/docs/safetensors — eight bytes with the size of a JSON header, the header with each
tensor's type, shape and place, then the values. It has no checksum; files that are written here have one among their
metadata, so that a changed byte is noticed. Every other reader of safetensors reads them like any other.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from os import PathLike
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from zoo.checkpointing.files import CheckpointError, local_target, write_whole
from zoo.checkpointing.strict_json import JSONError, parse_json
from zoo.wording import with_article

_SIZE_BYTES = 8
_LARGEST_HEADER = 16 * 1024 * 1024  # thousands of tensors take less than a megabyte
_METADATA = "__metadata__"
_CHECKSUM = "zoo-crc32"


def save_weights(network: nn.Module, path: str | PathLike[str]) -> None:
    """Write the parameters and buffers of a network to a safetensors file.

    :func:`zoo.checkpointing.load_weights` reads it. At every moment the file at ``path`` is the one before or the new
    one, and whole. Tensors that share their memory are written once each. The same weights give the same bytes.

    Args:
        network: any module whose state is tensors.
        path: of the file, by convention ``*.safetensors``; its folder is made if need be.

    Raises:
        CheckpointError: the state holds something else, or the file could not be written; one that was there before
            still is.
    """
    target = local_target(path)
    write_whole(dump_safetensors(network.state_dict(), str(target)), target)


def dump_safetensors(state: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a safetensors file of tensors by name, with a checksum among its metadata.

    Args:
        state: such as a state dict; on any device.
        name: what to call the file in an error.

    Raises:
        CheckpointError: the state holds something else than tensors, or what the format has not.
    """
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name} was not written: {key} is {with_article(type(value).__name__)}, not a tensor"
            )
    try:
        # Copies: tensors that share memory are refused by safetensors.
        tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}
        plain = safetensors.torch.save(tensors)
        header, values = _split(plain, name)
        return safetensors.torch.save(tensors, {_CHECKSUM: _checksum(header, values)})
    except CheckpointError:
        raise
    except Exception as error:  # a type or layout that the format has not, as its library puts it
        raise CheckpointError(f"{name} was not written: {error}") from error


def is_safetensors(data: bytes) -> bool:
    """Whether the bytes of a file begin as safetensors do, and neither a zip archive nor a pickle does."""
    return data[_SIZE_BYTES : _SIZE_BYTES + 1] == b"{" and int.from_bytes(data[:_SIZE_BYTES], "little") < 2**32


def parse_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors, by name, in the bytes of a safetensors file, on the CPU.

    Args:
        data: the whole file.
        name: what to call it in an error.

    Raises:
        CheckpointError: they are damaged.
    """
    header, values = _split(data, name)
    metadata = header.get(_METADATA)
    if isinstance(metadata, dict) and metadata.get(_CHECKSUM, checksum := _checksum(header, values)) != checksum:
        raise CheckpointError(f"{name} is damaged: its checksum is not that of its bytes")
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # the library's own type, and a KeyError for a type of number that it has not
        raise CheckpointError(f"{name} is damaged, or not a safetensors file: {str(error)[:300]}") from error


def _split(data: bytes, name: str) -> tuple[dict[str, Any], memoryview]:
    """The header of a file, and the bytes of all values."""
    size = int.from_bytes(data[:_SIZE_BYTES], "little")
    start = _SIZE_BYTES + size
    if size > _LARGEST_HEADER or len(data) < start:
        raise CheckpointError(f"{name} is damaged: it ends within its header, or that is larger than 16 MiB")
    try:
        header = parse_json(data[_SIZE_BYTES:start])
    except JSONError as error:
        raise CheckpointError(f"{name} is damaged: in its header, {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{name} is damaged: its header is not a JSON object")
    return header, memoryview(data)[start:]


def _checksum(header: dict[str, Any], values: memoryview) -> str:
    tensors = {name: about for name, about in header.items() if name != _METADATA}
    return f"{zlib.crc32(values, zlib.crc32(json.dumps(tensors, sort_keys=True).encode())):08x}"
