"""Whether a file is a zip archive as torch writes it, so that every reader of it sees the same records.

A zip archive can be made to mean one thing to one reader and another to the next, to declare more than it holds, and to
grow a thousandfold when it is unpacked. Torch stores its records as they are, one behind the other; nothing else is
accepted here, and what :func:`read_records` has found to be in a file is what torch will find.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from dataclasses import dataclass

_LOCAL_HEADER = b"PK\x03\x04"
_END, _END_SIZE = b"PK\x05\x06", 22
_LOCATOR, _LOCATOR_SIZE = b"PK\x06\x07", 20
_END_64, _END_64_SIZE = b"PK\x06\x06", 56
_LONGEST_COMMENT = 2**16 - 1
_BEYOND_32_BITS = 2**32 - 1
# The folder is named after the file, which may be called "epoch=3 (best)", the records by torch.
_NAME = re.compile(r"[ -.0-\[\]-~]+(?:/[A-Za-z0-9_.\- ]+)+")


class ArchiveError(ValueError):
    """A file that is no archive as torch writes them; says what it is instead."""


@dataclass(frozen=True)
class Records:
    """What is in an archive.

    Args:
        pickle: the pickled values.
        sizes: of all records in bytes, by name without the archive's own.
    """

    pickle: bytes
    sizes: dict[str, int]


def read_records(data: bytes) -> Records:
    """The records of an archive, of which none has been unpickled.

    Raises:
        ArchiveError: it is not as torch writes it.
    """
    if not data:
        raise ArchiveError("it is damaged: the file is empty")
    if not data.startswith(_LOCAL_HEADER):
        raise ArchiveError(
            "it is not the zip archive that torch writes; a file of another format, or of torch before 1.6, has to be "
            "loaded where it is trusted and saved again"
        )
    entries = _check_end(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) != entries:
                raise ArchiveError("it is damaged: it declares another number of records than it has")
            sizes = _sizes(infos, len(data))
            if "data.pkl" not in sizes:
                raise ArchiveError("it is an archive without the values that torch.save writes")
            [pickled] = [info for info in infos if info.filename.partition("/")[2] == "data.pkl"]
            return Records(archive.read(pickled), sizes)
    except ArchiveError:
        raise
    except Exception as error:  # zipfile raises half a dozen types for what it cannot make sense of
        raise ArchiveError(f"it is a damaged archive ({type(error).__name__})") from error


def _check_end(data: bytes) -> int:
    """The number of records by the directory's end, which there is exactly one of, and where every reader looks."""
    end = data.rfind(_END, max(0, len(data) - _END_SIZE - _LONGEST_COMMENT))
    if end < 0 or len(data) < end + _END_SIZE:
        raise ArchiveError("it is damaged: the archive is cut short")
    entries, size, start, comment = struct.unpack("<HIIH", data[end + 10 : end + _END_SIZE])
    border, locator = end, end - _LOCATOR_SIZE
    if data[max(0, locator) : end].startswith(_LOCATOR):
        border = locator - _END_64_SIZE
        (where,) = struct.unpack("<Q", data[locator + 8 : locator + 16])
        if border < 0 or where != border or not data[border:].startswith(_END_64):
            raise ArchiveError("it is damaged: the archive's directory is not where it should be")
        entries, size, start = struct.unpack("<QQQ", data[border + 32 : border + _END_64_SIZE])
    if end + _END_SIZE + comment != len(data) or start + size != border:
        raise ArchiveError("it is damaged: the archive's directory is not where it should be")
    return int(entries)


def _sizes(infos: list[zipfile.ZipInfo], length: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    prefixes, folded = set(), set()
    for info in infos:
        prefix, _, name = info.filename.partition("/")
        if info.orig_filename != info.filename or not _NAME.fullmatch(info.filename) or ".." in name.split("/"):
            raise ArchiveError("it is an archive with names that torch does not give")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise ArchiveError("it is a compressed archive, which torch does not write")
        if info.extra and length < _BEYOND_32_BITS:
            raise ArchiveError("it is an archive with fields that torch does not write")
        sizes[name] = info.file_size
        prefixes.add(prefix)
        folded.add(name.lower())  # torch looks records up without regard to case
    if len(folded) != len(infos) or len(prefixes) != 1:
        raise ArchiveError("it is an archive with two records of one name, or without a common folder")
    if sum(sizes.values()) > length:
        raise ArchiveError("it is damaged: the archive declares more than it holds")
    return sizes
