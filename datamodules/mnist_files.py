"""The files of MNIST and its relatives: found, checked, extracted, downloaded.

Names, addresses and MD5 sums are torchvision's; the layout on disk is torchvision's too (``<data_dir>/MNIST/raw``), so
each can use what the other has fetched. No byte is used that has not been checked: what is parsed is what was read and
checked, in one piece, never the file a second time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from filelock import FileLock, Timeout
from torch import Tensor
from torchvision import datasets

from datamodules.atomic import read_bounded, sweep, whole_file
from datamodules.download import download
from datamodules.errors import DataError
from datamodules.idx import parse_idx

FileDatasetName = Literal["MNIST", "FashionMNIST", "KMNIST", "EMNIST"]

_LOCK_PATIENCE = 600.0  # seconds: a download that gets on may take long

_NUM_CLASSES = 10
_SIZE = 28
_SAMPLES = {"train": 60_000, "t10k": 10_000}
_EMNIST_SAMPLES = {"train": 240_000, "test": 40_000}
_EMNIST_BUNDLE_MAX_SIZE = 1 << 30  # the official one has 561,753,746 bytes

# CRC-32 of the extracted files, so that they can be checked without their archives.
_MNIST_CRC32 = {
    "train-images-idx3-ubyte": 0xE9F4D8B3,
    "train-labels-idx1-ubyte": 0xE0CB4AD2,
    "t10k-images-idx3-ubyte": 0x91373BDF,
    "t10k-labels-idx1-ubyte": 0x4AB9EFF9,
}


@dataclass(frozen=True)
class _File:
    """One IDX file, and the archive it comes in."""

    name: str
    archive: str
    max_size: int  # bytes that neither the file nor its archive can have more of, however damaged
    md5: str | None  # of the archive; None where only a larger archive has an official sum
    crc32: int | None  # of the file; None where it is in the archive's own trailer


class MNISTFiles:
    """The raw files of one data set below ``data_dir``.

    Args:
        data_dir: the folder of all data sets.
        dataset: ``"MNIST"``, ``"FashionMNIST"``, ``"KMNIST"`` or ``"EMNIST"`` (its digits).
        may_download: fetch what is missing or damaged.
    """

    def __init__(self, data_dir: Path, dataset: FileDatasetName, *, may_download: bool) -> None:
        self.dataset = dataset
        self.source = getattr(datasets, dataset)
        self.folder = data_dir / dataset / "raw"
        self.may_download = may_download

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Images ``(samples, 28, 28)`` and labels ``(samples,)`` of the training or the test set, uint8.

        Raises:
            DataError: a file is missing or damaged and could not be mended; names it and says what to do.
        """
        if self.dataset == "EMNIST":
            part = "train" if train else "test"
            stem, samples = f"emnist-digits-{part}", _EMNIST_SAMPLES[part]
        else:
            part = "train" if train else "t10k"
            stem, samples = part, _SAMPLES[part]
        images_name, labels_name = f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"
        images = parse_idx(self.read(images_name), str(self.folder / images_name))
        labels = parse_idx(self.read(labels_name), str(self.folder / labels_name))
        if images.shape != (samples, _SIZE, _SIZE):
            raise DataError(
                f"{self.folder / images_name} is damaged: its shape is {tuple(images.shape)} instead of "
                f"{(samples, _SIZE, _SIZE)}; {self._advice()}"
            )
        if labels.shape != (samples,):
            raise DataError(
                f"{self.folder / labels_name} is damaged: its shape is {tuple(labels.shape)} instead of "
                f"{(samples,)}; {self._advice()}"
            )
        if int(labels.max()) >= _NUM_CLASSES:
            raise DataError(
                f"{self.folder / labels_name} is damaged: it holds the label {int(labels.max())}, beyond "
                f"0..{_NUM_CLASSES - 1}; {self._advice()}"
            )
        if self.dataset == "EMNIST":
            images = images.transpose(1, 2).contiguous()  # EMNIST is stored on its side
        return images, labels

    def read(self, name: str) -> bytes:
        """The checked contents of one file: as extracted, else from its archive, else downloaded.

        Raises:
            DataError: none of these could be had.
        """
        file = self._files()[name]
        contents = self._extracted(file)
        if contents is not None:
            return contents
        with self._lock() as alone:
            if alone:
                self._sweep(file)
            # Another process may have done it while this one waited.
            contents = self._extracted(file)
            if contents is None:
                contents = self._from_archive(file)
                # Where nothing can be written the contents are in memory, and the next run extracts again.
                with suppress(OSError):
                    _write(self.folder / file.name, contents)
            return contents

    def _files(self) -> dict[str, _File]:
        if self.dataset == "EMNIST":
            names = [
                f"emnist-digits-{part}-{kind}"
                for part in ("train", "test")
                for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
            ]
            return {name: _File(name, f"{name}.gz", self._max_size(name), None, None) for name in names}
        crc32 = _MNIST_CRC32 if self.dataset == "MNIST" else {}
        files = [(archive.removesuffix(".gz"), archive, md5) for archive, md5 in self.source.resources]
        return {name: _File(name, archive, self._max_size(name), md5, crc32.get(name)) for name, archive, md5 in files}

    def _max_size(self, name: str) -> int:
        """Twice what there is in an intact file, and room for headers."""
        part, kind = name.removeprefix("emnist-digits-").split("-")[:2]
        samples = (_EMNIST_SAMPLES if self.dataset == "EMNIST" else _SAMPLES)[part]
        return 2 * samples * (_SIZE * _SIZE if kind == "images" else 1) + 4096

    def _extracted(self, file: _File) -> bytes | None:
        """The extracted file, if it is there and intact."""
        contents = _read_if_there(self.folder / file.name, file.max_size)
        if contents is None:
            return None
        crc32 = file.crc32
        if crc32 is None:
            archive = self._intact_archive(file)
            if archive is None:
                return None  # nothing to check it against
            # A gzip file ends with the CRC-32 and the length of what is in it (RFC 1952).
            crc32 = int.from_bytes(archive[-8:-4], "little")
        return contents if zlib.crc32(contents) == crc32 else None

    def _intact_archive(self, file: _File) -> bytes | None:
        archive = _read_if_there(self.folder / file.archive, file.max_size)
        if archive is None or (file.md5 is not None and _md5(archive) != file.md5):
            return None
        # Without an official sum of its own an archive has to be read to the end.
        return archive if file.md5 is not None or _gunzip(archive, file.max_size) else None

    def _from_archive(self, file: _File) -> bytes:
        """What is in the archive: the one on disk, else that in the bundle, else a download."""
        archive = self._intact_archive(file) or self._from_bundle(file)
        if archive is None:
            self._download(file)
            archive = self._intact_archive(file) or self._from_bundle(file)
        contents = None if archive is None else _gunzip(archive, file.max_size)
        if contents is None:
            raise DataError(f"{self.folder / file.archive} is damaged; {self._advice()}")
        return contents

    @property
    def _bundle(self) -> Path | None:
        """EMNIST comes as one archive of archives, of which torchvision keeps only the outer one."""
        return self.folder / "gzip.zip" if self.dataset == "EMNIST" else None

    def _from_bundle(self, file: _File) -> bytes | None:
        bundle = None if self._bundle is None else _read_if_there(self._bundle, _EMNIST_BUNDLE_MAX_SIZE)
        if bundle is None or _md5(bundle) != self.source.md5:
            return None
        contents = _unzip(bundle, file.archive, file.max_size)
        if contents is not None:
            with suppress(OSError):
                _write(self.folder / file.archive, contents)
        return contents

    def _download(self, file: _File) -> None:
        if not self.may_download:
            raise DataError(f"{self._state(file)}; {self._advice()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._bundle is not None:
                download([self.source.url], self._bundle, self.source.md5, max_size=_EMNIST_BUNDLE_MAX_SIZE)
            else:
                assert file.md5 is not None
                urls = [mirror + file.archive for mirror in self.source.mirrors]
                download(urls, self.folder / file.archive, file.md5, max_size=file.max_size)
        except OSError as error:
            raise DataError(f"{self._state(file)}, and {self.folder} cannot be written to ({error})") from error
        except DataError as error:
            raise DataError(f"{self._state(file)}, and {error}") from error

    def _state(self, file: _File) -> str:
        """What is wrong with a file, for an error."""
        extracted, archive = self.folder / file.name, self.folder / file.archive
        there = [str(path) for path in (extracted, archive) if _is_there(path)]
        if not there:
            return f"{extracted} is missing, and so is {archive.name}"
        return f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} damaged, or cannot be checked"

    def _advice(self) -> str:
        archives = ", ".join(file.archive for file in self._files().values())
        return f"put the official archives ({archives}) into {self.folder}, or let them be downloaded (source='auto')"

    def _sweep(self, file: _File) -> None:
        """Remove what a process that was killed had begun to write."""
        for path in (self.folder / file.name, self.folder / file.archive, self._bundle):
            with suppress(OSError):
                if path is not None:
                    sweep(path)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """One process at a time extracts or downloads; where nothing can be written there is nothing to guard.

        Yields:
            Whether this process has the lock.

        Raises:
            DataError: another process has had it for longer than any work would take.
        """
        lock = FileLock(self.folder / ".lock", timeout=_LOCK_PATIENCE)
        try:
            if self.may_download:
                self.folder.mkdir(parents=True, exist_ok=True)
            if os.access(self.folder, os.W_OK):
                lock.acquire()
        except Timeout as error:
            raise DataError(
                f"another process has held {self.folder / '.lock'} for {_LOCK_PATIENCE:.0f} s: end it, or let it go on"
            ) from error
        except (OSError, NotImplementedError):
            pass  # a file system without locks, for one: files are whole there too, but may be fetched twice
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _read_if_there(path: Path, max_size: int) -> bytes | None:
    try:
        return read_bounded(path, max_size)
    except OSError:
        return None


def _is_there(path: Path) -> bool:
    """Whether there is anything at ``path``, or may be, where nobody lets us look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _md5(contents: bytes) -> str:
    return hashlib.md5(contents, usedforsecurity=False).hexdigest()


def _gunzip(archive: bytes, max_size: int) -> bytes | None:
    """What is in a gzip archive, unless that is damaged or more than ``max_size`` bytes."""
    try:
        with gzip.open(io.BytesIO(archive)) as file:
            contents = file.read(max_size + 1)  # beyond the end, where the checksum is
    except (OSError, EOFError, zlib.error, struct.error):
        return None
    return contents if len(contents) <= max_size else None


def _unzip(bundle: bytes, name: str, max_size: int) -> bytes | None:
    """The one file called ``name`` in any folder of a zip archive, unless it is damaged or more than ``max_size``."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            members = [member for member in archive.infolist() if PurePosixPath(member.filename).name == name]
            # Other methods ask for memory as they please.
            if len(members) != 1 or members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                return None
            with archive.open(members[0]) as file:
                contents = file.read(max_size + 1)
    except (OSError, EOFError, ValueError, RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error):
        return None
    return contents if len(contents) <= max_size else None


def _write(path: Path, contents: bytes) -> None:
    with whole_file(path) as file:
        file.write(contents)
