"""The list of shipped weights: what each file is, how it was made, and the checksum it is known by.

A manifest is a JSON file beside the weights. It is read as if a stranger had written it: nothing in it is looked up,
opened or called before it has the form described at :class:`ManifestEntry`, and a file is used only if its bytes have
the SHA-256 that stands here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.checkpointing import CheckpointError, require_local_file, write_whole
from zoo.checkpointing.strict_json import JSONError, parse_json
from zoo.pretrained.forms import PretrainedError, is_name, read_bytes, require, shown
from zoo.pretrained.record import ModelRecord

MAX_MANIFEST_SIZE = 1024 * 1024
MAX_WEIGHTS_SIZE = 1024 * 1024 * 1024

_ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.safetensors")
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")  # by Windows, in every folder


class ManifestError(PretrainedError):
    """A manifest, or a file listed in it, that cannot be read or written; names the entry."""


@dataclass(frozen=True, kw_only=True)
class ManifestEntry(ModelRecord):
    """One file of weights, and all that is known of the model that they are of.

    Args:
        class_name: see :class:`ModelRecord`, as for all but the last; the class is one of :mod:`zoo`.
        arguments: see there.
        module: see there.
        data: see there; known, as are ``mean``, ``std``, ``metrics``, ``seed``, ``command`` and ``versions``.
        data_class: see there.
        data_arguments: see there.
        checksums: see there.
        mean: see there.
        std: see there.
        metrics: see there.
        temperature: see there.
        seed: see there.
        command: see there.
        versions: see there.
        sha256: see there.
        file: name of the safetensors file in the manifest's own folder.

    Raises:
        PretrainedError: a value is not of this form; names the field.
    """

    file: str

    required = ("data", "mean", "std", "metrics", "seed", "command", "versions")

    def __post_init__(self) -> None:
        super().__post_init__()
        is_file = is_name(self.file, _FILE_NAME) and not _RESERVED.fullmatch(self.file)
        require(is_file, "file", "the plain name of a .safetensors file, without a folder", self.file)


def read_manifest(path: str | PathLike[str]) -> dict[str, ManifestEntry]:
    """The entries of a manifest, by name.

    Raises:
        ManifestError: it cannot be read, or is not exactly of the form that :func:`write_manifest` gives it.
    """
    local = _local_file(path)
    return parse_manifest(_read(local, MAX_MANIFEST_SIZE), str(local))


def parse_manifest(data: bytes, name: str) -> dict[str, ManifestEntry]:
    """The entries in the bytes of a manifest; see :func:`read_manifest`.

    Args:
        data: the whole file.
        name: what to call it in an error.
    """
    try:
        entries = parse_json(data)
    except JSONError as error:
        raise ManifestError(f"{name} is no manifest: {error}") from error
    if not isinstance(entries, dict):
        raise ManifestError(f"{name} is no manifest: it is not a JSON object")
    return {entry_name: _entry(entry_name, values, name) for entry_name, values in entries.items()}


def write_manifest(entries: Mapping[str, ManifestEntry], path: str | PathLike[str]) -> None:
    """Write a manifest; the file at ``path`` is at every moment the one before or the new one, and whole.

    Raises:
        CheckpointError: a name is not plain, or the file could not be written.
    """
    for name in entries:
        _check_entry_name(name, str(path))
    values = {name: entry.as_json() for name, entry in entries.items()}
    data = (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
    if len(data) > MAX_MANIFEST_SIZE:
        raise ManifestError(f"{path} was not written: it would be larger than {MAX_MANIFEST_SIZE:,} bytes")
    write_whole(data, Path(path))


def read_verified(folder: str | PathLike[str], entry: ManifestEntry) -> bytes:
    """The bytes of the file that an entry is about, once they have proved to be those.

    They are read once: what is checked is what is used, whatever becomes of the file.

    Args:
        folder: the manifest's.
        entry: of the manifest.

    Raises:
        ManifestError: the file is missing, is not in the folder, is larger than 1 GiB, or has another checksum.
    """
    local = Path(folder) / entry.file
    try:
        inside = local.resolve().parent == Path(folder).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise ManifestError(f"{local} cannot be read: {error}") from error
    if not inside:
        raise ManifestError(f"{local} is a link out of its folder: put the file itself there")
    data = _read(local, MAX_WEIGHTS_SIZE)
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise ManifestError(
            f"{local} is not the file that was shipped: its SHA-256 is {found}, the manifest's is {entry.sha256}"
        )
    return data


def _entry(name: str, values: Any, source: str) -> ManifestEntry:
    _check_entry_name(name, source)
    try:
        return ManifestEntry.from_json(values)
    except PretrainedError as error:
        raise ManifestError(f"{source}, entry {name}: {error}") from error


def _check_entry_name(name: str, source: str) -> None:
    if not is_name(name, _ENTRY_NAME):
        raise ManifestError(f"{source}: the entry name {shown(name)} must be of letters, digits, '.', '_' and '-'")


def _local_file(path: str | PathLike[str]) -> Path:
    try:
        return require_local_file(path)
    except CheckpointError as error:
        raise ManifestError(str(error)) from error


def _read(local: Path, limit: int) -> bytes:
    try:
        return read_bytes(local, limit)
    except PretrainedError as error:
        raise ManifestError(str(error)) from error
