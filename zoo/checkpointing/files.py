"""Local files, which are whole or not there, and the error for those that cannot be read or written."""

from __future__ import annotations

import errno
import os
import re
from os import PathLike, fspath
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://|:)|(?:file|data):")  # also those that fsspec chains by ::


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, or that would not be safe to read."""


def require_local_file(path: str | PathLike[str]) -> Path:
    """``path`` as a ``Path`` to an existing file; URLs and everything else raise :class:`CheckpointError`."""
    text = fspath(path)
    if _URL.match(text):
        raise CheckpointError(f"{text} is a URL: download the file and check where it comes from, then pass its path")
    local = Path(text)
    what = f"there is no checkpoint file {text[:500]}"
    try:
        if local.is_file():
            return local
        if text and local.is_dir():
            what = f"{text[:500]} is a directory, give a file"
            if inside := [*local.glob("*.ckpt")] or [*local.glob("checkpoints/*.ckpt")]:
                what += f": there is {min(inside, key=lambda file: (len(file.name), file.name))}"  # best, last, others
    except (OSError, ValueError):  # a name too long, or with a null byte
        pass
    raise CheckpointError(what)


def local_target(path: str | PathLike[str]) -> Path:
    """``path`` as a ``Path`` to write to; of a URL that would make folders called after it.

    Raises:
        CheckpointError: it is a URL.
    """
    text = fspath(path)
    if _URL.match(text):
        raise CheckpointError(f"{text} is a URL: files are written to local paths only")
    return Path(text)


def write_whole(data: bytes, target: Path) -> None:
    """Write a file beside its place, sync it to the disk, read it back, and only then rename it.

    Raises:
        CheckpointError: it could not be written; a file that was there before still is.
    """
    was_there = False
    # In the same folder: to another file system a file cannot be renamed, only copied.
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        was_there = target.is_file()
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
    if not hasattr(os, "O_DIRECTORY"):  # Windows, which opens no folder as a file
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no way to
            raise
    finally:
        os.close(descriptor)
