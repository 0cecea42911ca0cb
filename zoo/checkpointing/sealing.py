"""A checksum in a file's own last bytes, so that a file that was changed or cut short is known for one.

Torch writes checkpoints as zip archives, which may end in a comment. The checksum of all bytes before it goes there:
torch, Lightning and every other reader of zip archives read a sealed file like any other.
"""

from __future__ import annotations

import zlib

_MARK = b"zoo-crc32:"
_DIGITS = 8
_SEAL_SIZE = len(_MARK) + _DIGITS
_END_OF_ARCHIVE = b"PK\x05\x06"
_END_SIZE = 22  # bytes of that record before the comment, whose size its last two bytes are


class SealError(ValueError):
    """A file whose bytes are not those that were sealed."""


def seal(archive: bytes) -> bytes:
    """A zip archive without a comment, sealed.

    Raises:
        ValueError: it is none, or has a comment already.
    """
    end = archive[-_END_SIZE:]
    if len(end) < _END_SIZE or end[:4] != _END_OF_ARCHIVE or end[-2:] != b"\0\0":
        raise ValueError("expected a zip archive without a comment")
    body = archive[:-2] + _SEAL_SIZE.to_bytes(2, "little") + _MARK
    return body + _checksum(body)


def is_sealed(data: bytes) -> bool:
    """Whether the bytes of a file are sealed, and unchanged since; those of another program's files are not sealed.

    Raises:
        SealError: they are sealed, and were changed.
    """
    marked = data[-_SEAL_SIZE:-_DIGITS] == _MARK
    if marked and data[-_DIGITS:] == _checksum(data[:-_DIGITS]):
        return True
    # Of a seal that was changed itself, or cut short, either the mark is left, or the size of the comment.
    ending = data[-_END_SIZE - _SEAL_SIZE :]
    end = ending[max(0, ending.rfind(_END_OF_ARCHIVE)) :][:_END_SIZE]
    if marked or (end[:4] == _END_OF_ARCHIVE and end[-2:] == _SEAL_SIZE.to_bytes(2, "little")):
        raise SealError("its checksum is not that of its bytes: it was changed after it was written")
    return False


def _checksum(data: bytes) -> bytes:
    return b"%08x" % zlib.crc32(data)
