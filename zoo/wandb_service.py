"""W&B's own process, file and log: what can go wrong with them, and what W&B does not say."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.background import within

_BLOCK = 32 * 1024  # of LevelDB's log format, in which W&B writes
_HEADER = 7
_FIRST_PARTS = (1, 2)  # a whole record, or the beginning of one
_CACHE = "WANDB_CACHE_DIR"
_DATA = "WANDB_DATA_DIR"
_LAUNCHER = "wandb.sdk.launch"
_LOOK_FOR_INPUTS = "_detect_and_apply_job_inputs"  # private to W&B: where it is gone, nothing is left out
_LOOKING = threading.Lock()
_EXIT_PATIENCE = 1.0
_FLUSH_PATIENCE = 1.0


def end_service(run: Any = None) -> None:
    """Kill W&B's process, which sets free every call that waits for it; unless runs beside ``run`` are open there.

    W&B's own ``teardown`` waits until the process is ready to end, which may be never.
    """
    setup, process = _service()
    if setup is None:
        return
    if run is not None:
        setup.remove_active_run(run)
    if setup.most_recent_active_run is not None:
        return
    if process is not None:
        process.kill()
        process.wait()
    _forget_service()


def default_server() -> str:
    """The address that W&B's settings name; ``wandb.setup()`` would start its process."""
    from wandb.sdk import wandb_setup

    return str(wandb_setup.singleton().settings.base_url)


def service_ended() -> bool:
    """Whether W&B's process is gone."""
    _, process = _service()
    return process is not None and process.poll() is not None


def _service() -> tuple[Any, subprocess.Popen[bytes] | None]:
    """W&B's singleton, and its process if this one has started it; W&B has no public name for them."""
    from wandb.sdk import wandb_setup

    # Not by the function of this name, which waits for a lock that a hanging call may hold.
    setup = getattr(wandb_setup, "_singleton", None)
    connection = getattr(setup, "_connection", None)
    return setup, getattr(getattr(connection, "_proc", None), "_process", None)


def _forget_service() -> None:
    """Let the next run start a new process, and take W&B's hooks for the end of this one away."""
    import wandb

    with contextlib.suppress(BaseException):  # it complains of the process that is gone
        within(1.0, wandb.teardown)


@functools.cache
def bound_exit() -> None:
    """See to it that the interpreter's end never waits for long for W&B's process.

    To be called when a run has started: what is registered last runs first, and W&B has a hook of its own.
    """
    exiting = threading.Event()

    def watch() -> None:
        exiting.wait()
        setup, process = _service()
        if process is None or setup.most_recent_active_run is not None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_PATIENCE)
        process.kill()

    def at_exit() -> None:
        _, process = _service()
        if process is not None and process.poll() is not None:
            _forget_service()
        exiting.set()

    # No thread can be started any more when the interpreter ends.
    threading.Thread(target=watch, name="zoo-wandb-exit", daemon=True).start()
    atexit.register(at_exit)


@contextlib.contextmanager
def cache_in(directory: Path) -> Iterator[None]:
    """For the block, a cache directory for W&B's process if the user's cannot be written.

    The process writes its log there, or else to the screen.
    """
    if _has_cache():
        yield
        return
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str((directory / "wandb" / "cache").absolute())
    try:
        yield
    finally:
        del os.environ[_CACHE]
        if before is not None:
            os.environ[_CACHE] = before


@contextlib.contextmanager
def data_in(directory: Path) -> Iterator[None]:
    """For the block, W&B copies what belongs to tables into ``directory``, unless the user has named another.

    Else it would stay in the user's home, whatever becomes of the run.
    """
    if _DATA in os.environ:
        yield
        return
    os.environ[_DATA] = str(directory.absolute() / "data")
    try:
        yield
    finally:
        os.environ.pop(_DATA, None)


def _has_cache() -> bool:
    home = os.environ.get("HOME")
    cache = os.environ.get(_CACHE) or os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else None)
    if cache is None:
        return os.name == "nt"
    try:
        Path(cache).mkdir(parents=True, exist_ok=True)  # W&B would
    except OSError:
        return False
    return os.access(cache, os.W_OK)


@contextlib.contextmanager
def without_launcher() -> Iterator[None]:
    """For the block, a run that starts does not look for inputs that W&B's launcher was told to add to it.

    To look it would import the launcher, which takes as long as all else that W&B does to start, or longer. Where
    nobody has imported it, nobody has told it anything.
    """
    from wandb.sdk.wandb_run import Run

    if not hasattr(Run, _LOOK_FOR_INPUTS) or _LAUNCHER in sys.modules:
        yield
        return
    with _LOOKING:
        look = getattr(Run, _LOOK_FOR_INPUTS)
        setattr(Run, _LOOK_FOR_INPUTS, lambda run: None)
        try:
            yield
        finally:
            setattr(Run, _LOOK_FOR_INPUTS, look)


def check_writable(directory: Path) -> None:
    """Write on trial where W&B would, in ``wandb`` below a directory.

    Raises:
        OSError: what is in the way; W&B itself would say nothing, or go to another directory.
    """
    folder = directory / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / ".trial"
    try:
        trial.write_bytes(bytes(2 * _BLOCK))
    finally:
        trial.unlink(missing_ok=True)


def check_complete(file: Path) -> None:
    """Check that a finished run's file ends with the record of its end; W&B does not say when it could not write.

    Raises:
        OSError: it does not, or there is no file.
    """
    deadline = time.monotonic() + _FLUSH_PATIENCE
    while not _ends_with_exit(file):
        if time.monotonic() > deadline:
            raise OSError(f"{file.name} is incomplete: the disk may be full, or the file too large")
        time.sleep(0.02)  # it is flushed only after W&B has said that the run is finished


def _ends_with_exit(file: Path) -> bool:
    from wandb.proto import wandb_internal_pb2

    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        # No record of the end is longer than a block, and each block begins with a part of a record.
        position = max(0, size // _BLOCK - 1) * _BLOCK
        opened.seek(position)
        data = opened.read()
    offset = _HEADER if position == 0 else 0  # W&B's own header has the length of a record's
    content = b""
    while offset + _HEADER <= len(data):
        room = _BLOCK - offset % _BLOCK
        if room < _HEADER:
            offset += room
            continue
        length, part = int.from_bytes(data[offset + 4 : offset + 6], "little"), data[offset + 6]
        body = data[offset + _HEADER : offset + _HEADER + length]
        content = body if part in _FIRST_PARTS else content + body
        offset += _HEADER + length
    protocol: Any = wandb_internal_pb2  # its classes are made when it is imported
    record = protocol.Record()
    try:
        record.ParseFromString(content)
    except Exception:  # protobuf's DecodeError, or whatever stands for it: the last record is cut short
        return False
    return offset == len(data) and bool(record.WhichOneof("record_type") == "exit")


def silence_log() -> None:
    """Let W&B's log of a run, a file beside it, fail without a word: a full disk would fill the screen."""
    for handler in logging.getLogger("wandb").handlers:
        handler.handleError = _ignore  # type: ignore[method-assign]


def _ignore(record: logging.LogRecord) -> None:
    return None
