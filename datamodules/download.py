"""Downloads that are bounded in time and in size, checked, and never half-written."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from datamodules.atomic import whole_file
from datamodules.errors import DataError

PATIENCE = 8.0
"""Seconds without progress after which a network counts as absent."""

_LEAST_PROGRESS = 64 * 1024  # bytes in each span of PATIENCE seconds, so that a trickle is no progress either
_CHUNK = 1 << 16


def download(urls: Sequence[str], target: Path, md5: str, *, max_size: int, patience: float = PATIENCE) -> None:
    """Fetch the first of ``urls`` that answers with the right contents, and put it at ``target`` in one piece.

    Args:
        urls: the same file at several places, in order of preference.
        target: where it goes; its folder must exist.
        md5: of the right contents.
        max_size: bytes that the right contents do not exceed; no more than these are ever written.
        patience: seconds without progress, over all urls together, before giving up; each has its share of them. A
            download that gets on may take as long as it needs.

    Raises:
        DataError: none of them did; names each url and what went wrong.
    """
    failures = []
    for url in urls:
        try:
            _download_one(url, target, md5, max_size, _Deadline(patience / len(urls)))
            return
        except DataError as error:
            failures.append(f"{url}: {error}")
    raise DataError(f"{target.name} could not be downloaded ({'; '.join(failures)})")


class _Deadline:
    """Moves on with progress."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._until = time.monotonic() + patience
        self._bytes = 0

    def progress(self, size: int) -> None:
        self._bytes += size
        if self._bytes >= _LEAST_PROGRESS:
            self._until, self._bytes = time.monotonic() + self.patience, 0

    def remaining(self) -> float:
        return self._until - time.monotonic()

    def passed(self) -> bool:
        return self.remaining() <= 0


def _download_one(url: str, target: Path, md5: str, max_size: int, deadline: _Deadline) -> None:
    # In a thread, because looking up a name can hang for longer than any time-out that urllib knows of. The thread
    # is left behind if it does.
    chunks: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=64)
    stop = threading.Event()
    threading.Thread(target=_read, args=(url, chunks, stop, deadline.patience), daemon=True).start()
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with whole_file(target) as file:
            while (chunk := _next_chunk(chunks, deadline)) is not None:
                size += len(chunk)
                if size > max_size:
                    raise DataError(f"it sends more than {max_size:,} bytes, so these are not the official contents")
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != md5:
                raise DataError(f"the contents are not the official ones (md5 {digest.hexdigest()} instead of {md5})")
    finally:
        stop.set()


def _next_chunk(chunks: queue.Queue[bytes | Exception | None], deadline: _Deadline) -> bytes | None:
    """What comes next, or ``None`` at the end."""
    try:
        chunk = chunks.get(timeout=max(0.01, deadline.remaining()))
    except queue.Empty:
        raise DataError(f"no answer within {deadline.patience:g} s") from None
    if isinstance(chunk, Exception):
        raise DataError(str(chunk) or type(chunk).__name__) from chunk
    if chunk is not None:
        deadline.progress(len(chunk))
        if deadline.passed():
            raise DataError(f"hardly any progress within {deadline.patience:g} s")
    return chunk


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes on to another address of the web, without what the first one sends besides."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("http://", "https://")):
            raise urllib.error.HTTPError(newurl, code, f"redirection to {newurl} is not allowed", headers, fp)
        fp.close()  # urllib would read all of it, however much that is
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(url: str, chunks: queue.Queue[bytes | Exception | None], stop: threading.Event, timeout: float) -> None:
    try:
        with urllib.request.build_opener(_Redirects).open(url, timeout=timeout) as response:
            while not stop.is_set():
                chunk = response.read1(_CHUNK)
                _put(chunks, chunk or None, stop)
                if not chunk:
                    return
    except Exception as error:
        _put(chunks, error, stop)


def _put(chunks: queue.Queue[bytes | Exception | None], item: bytes | Exception | None, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            chunks.put(item, timeout=0.5)
            return
        except queue.Full:
            continue
