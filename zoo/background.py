"""Calls that may hang, kept away from those who cannot wait."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_INTERVAL = 0.1


class Patience:
    """Seconds that may be waited in all.

    Args:
        seconds: how many at the beginning.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Take the time that the block takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.left = max(0.0, self.left - (time.monotonic() - started))


def within(seconds: float, action: Callable[[], T]) -> T:
    """What ``action`` returns or raises, if it is done in time; else it is left to itself in its thread.

    Raises:
        TimeoutError: it is not done after ``seconds``.
        RuntimeError: it raised what is no ``Exception``.
    """
    results: list[T] = []
    calls = BackgroundCalls()
    calls.put(lambda: results.append(action()))
    calls.close()
    calls.wait(seconds)
    if calls.error is None:
        return results[0]
    if isinstance(calls.error, Exception):
        raise calls.error
    raise RuntimeError(repr(calls.error)) from calls.error


class BackgroundCalls:
    """Makes calls in their order in a thread of its own, up to the first that fails, whose error it keeps.

    The thread does not keep the interpreter from ending.

    Args:
        limit: calls that may be waiting.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.error: BaseException | None = None
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue(limit)
        self._made = 0
        self._closed = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._run, name="zoo-background-calls", daemon=True).start()

    def put(self, call: Callable[[], object], seconds: float = 0.0) -> None:
        """Make a call, after those before it.

        Raises:
            TimeoutError: too many calls are waiting, and none of them was made within ``seconds``.
        """
        try:
            self._calls.put(call, timeout=seconds)
        except queue.Full:
            raise TimeoutError(f"{self._calls.maxsize} calls are waiting for one that hangs") from None

    def close(self) -> None:
        """Let the thread end when the calls that are waiting have been made."""
        self._closed.set()
        with contextlib.suppress(queue.Full):  # there are enough to wake it
            self._calls.put_nowait(lambda: None)

    def wait(self, seconds: float) -> None:
        """Wait for the thread to end, because it is closed or a call failed.

        Raises:
            TimeoutError: a call has not returned after ``seconds``.
        """
        made, deadline = self._made, time.monotonic() + seconds
        while not self._done.wait(min(seconds, _INTERVAL)):
            if self._made > made:
                made, deadline = self._made, time.monotonic() + seconds
            elif time.monotonic() >= deadline:
                raise TimeoutError(f"it did not answer within {seconds:.1f} s")

    def _run(self) -> None:
        try:
            while not (self._closed.is_set() and self._calls.empty()):
                self._calls.get()()
                self._made += 1
        except BaseException as error:  # also SystemExit: it is for whoever waits
            self.error = error
        finally:
            self._done.set()
