"""The list of shipped weights: what each file is, how it was made, and the checksum it is known by.

A manifest is a JSON file beside the weights. It is read as if a stranger had written it: nothing in it is looked up,
opened or called before it has the form described at :class:`ManifestEntry`, and a file is used only if its bytes have
the SHA-256 that stands here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.checkpointing import CheckpointError, require_local_file, write_whole
from zoo.checkpointing.strict_json import JSONError, parse_json

MAX_MANIFEST_SIZE = 1024 * 1024
MAX_WEIGHTS_SIZE = 1024 * 1024 * 1024

_ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.safetensors")
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")  # by Windows, in every folder
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_SEED = 2**32 - 1
_LONGEST_TEXT = 1000


class ManifestError(CheckpointError):
    """A manifest, or a file listed in it, that cannot be read or written; names the entry."""


@dataclass(frozen=True)
class ManifestEntry:
    """One file of weights.

    Args:
        class_name: the model's class in :mod:`zoo`.
        arguments: what to call it with: plain numbers, strings, booleans, ``None``, and tuples and dicts of these. What
            was a list comes back as a tuple.
        data: the data set it was trained on.
        mean: of the features it was trained on, one for all or one a channel, to standardise others with.
        std: of the same features; positive.
        metrics: as measured, by name.
        seed: of the run.
        command: that made the weights.
        versions: of the libraries they were made with, by name.
        file: name of the safetensors file in the manifest's own folder.
        sha256: of that file, 64 lower-case hexadecimal digits.

    Raises:
        ManifestError: a value is not of this form; names the field.
    """

    class_name: str
    arguments: dict[str, Any]
    data: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metrics: dict[str, float]
    seed: int
    command: str
    versions: dict[str, str]
    file: str
    sha256: str

    def __post_init__(self) -> None:
        _require(_is_name(self.class_name, _CLASS_NAME), "class_name", "the name of a class", self.class_name)
        is_arguments = _is_dict(self.arguments, _is_plain) and all(map(str.isidentifier, self.arguments))
        _require(is_arguments, "arguments", "plain values by the names of arguments", self.arguments)
        for field, value in (("data", self.data), ("command", self.command)):
            _require(_is_text(value), field, f"a line of at most {_LONGEST_TEXT} characters", value)
        for field, numbers in (("mean", self.mean), ("std", self.std)):
            is_numbers = isinstance(numbers, tuple) and len(numbers) > 0 and all(map(_is_number, numbers))
            _require(is_numbers, field, "a list of finite numbers", numbers)
        _require(min(self.std) > 0, "std", "positive", self.std)
        _require(len(self.std) == len(self.mean), "std", "as long as mean", self.std)
        _require(_is_dict(self.metrics, _is_number), "metrics", "finite numbers by name", self.metrics)
        is_seed = type(self.seed) is int and 0 <= self.seed <= _LARGEST_SEED
        _require(is_seed, "seed", f"an integer from 0 to {_LARGEST_SEED}", self.seed)
        _require(_is_dict(self.versions, _is_text), "versions", "strings by name", self.versions)
        is_file = _is_name(self.file, _FILE_NAME) and not _RESERVED.fullmatch(self.file)
        _require(is_file, "file", "the plain name of a .safetensors file, without a folder", self.file)
        _require(_is_name(self.sha256, _SHA256), "sha256", "64 lower-case hexadecimal digits", self.sha256)


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
    values = {name: asdict(entry) for name, entry in entries.items()}
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
    expected = [field.name for field in fields(ManifestEntry)]
    if not isinstance(values, dict) or values.keys() != set(expected):
        told = f"{', '.join(expected)}; got {_shown(list(values) if isinstance(values, dict) else values)}"
        raise ManifestError(f"{source}, entry {name}: it must have exactly the keys {told}")
    try:
        return ManifestEntry(**{key: _with_tuples(value) for key, value in values.items()})
    except ManifestError as error:
        raise ManifestError(f"{source}, entry {name}: {error}") from error


def _check_entry_name(name: str, source: str) -> None:
    if not _is_name(name, _ENTRY_NAME):
        raise ManifestError(f"{source}: the entry name {_shown(name)} must be of letters, digits, '.', '_' and '-'")


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value


def _require(holds: bool, field: str, form: str, value: Any) -> None:
    if not holds:
        raise ManifestError(f"{field} must be {form}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _is_name(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_dict(value: Any, is_value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and is_value(item) for key, item in value.items())


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return _is_dict(value, _is_plain)
    return value is None or type(value) is bool or _is_number(value) or (value == "" or _is_text(value))


def _local_file(path: str | PathLike[str]) -> Path:
    try:
        return require_local_file(path)
    except CheckpointError as error:
        raise ManifestError(str(error)) from error


def _read(local: Path, limit: int) -> bytes:
    """The bytes of a regular file, of which there may be at most ``limit``."""
    # Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(local, flags)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    return file.read(status.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ManifestError(f"{local} cannot be read: {error.strerror or error}") from error
    raise ManifestError(f"{local} cannot be read: it is not a regular file, or larger than {limit:,} bytes")
