"""Files that are there whole or not at all, and files read within a bound."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".part"
_MODE = 0o644  # what a plain open() gives under the usual umask; a temporary file is the owner's alone


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``path`` when the block ends well, synced to disk.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=_SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_MODE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what a :func:`whole_file` for ``path`` left behind when its process was killed.

    Only for who knows that nobody is writing ``path`` now.

    Raises:
        OSError: the folder cannot be read or written to.
    """
    prefix = _prefix(path)
    for entry in path.parent.iterdir():
        if entry.name.startswith(prefix) and entry.name.endswith(_SUFFIX):
            entry.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name}."


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, of which there may be at most ``limit``.

    Raises:
        OSError: the file cannot be read, is larger, or is a folder, a pipe or a device, which need not end.
    """
    # Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)
