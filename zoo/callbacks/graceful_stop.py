"""A run that is told to stop, stops where it can go on from."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from zoo.callbacks.last_checkpoint import can_go_on_from_here

_MOST_BATCHES = 200  # between two questions, however soon each is done: batches may become slower


class GracefulStop(Callback):
    """Lets SIGTERM and Ctrl-C end a fit between two batches, with exit code 143 and 130; a second Ctrl-C does at once.

    Callbacks hear of the stop in ``on_exception``, as Lightning's ``SIGTERMException``, with the step complete and
    logged: :class:`zoo.callbacks.LastCheckpoint` saves the run there. With accumulated
    gradients that is when the optimizer has stepped. A validation is left behind its current batch, but for the last
    one of a run of ``max_steps``. Of several processes all stop behind the same batch, whichever of them was told to,
    and validate to the end before they do. They ask each other about every ``interval`` seconds, counted in batches, of
    which at most 200 lie between; where a batch takes longer, before each, and stop behind the one after.

    A fit that is told behind its last batch comes to its end, checkpoint and all, and raises ``SIGTERMException`` then:
    what would follow it, such as a test, does not begin. Callbacks behind this one hear ``on_exception`` then instead
    of ``teardown``, as of any other stop.

    During the fit its handlers of both signals take the place of others. Python's signals reach the main thread only: a
    fit in another one is not stopped by them.

    Args:
        interval: seconds between two questions to the other processes, of which each takes up to a millisecond; 0 asks
            before each batch.

    Raises:
        ValueError: a negative or an infinite interval.
    """

    def __init__(self, interval: float = 0.25) -> None:
        if not 0.0 <= interval < math.inf:
            raise ValueError(f"interval must be at least 0 seconds, and finite, got {interval!r}")
        self.interval = interval
        #: What the fit was told to stop by, if it was.
        self.signal: int | None = None
        self._postponed = False
        self._is_alone = True
        self._asked: tuple[Any, Tensor] | None = None
        self._pace = _Pace(interval)
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A validation, or the next fit, is not to stop for what the fit before was told.
        self.signal, self._postponed, self._asked = None, False, None
        self._is_alone = trainer.world_size == 1
        self._pace = _Pace(self.interval)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.received_sigterm:
            # Told while the fit was being set up: not to end this process alone, before the others have heard of it.
            self.signal = self.signal or signal.SIGTERM
            _set_stop(trainer, False)
        # Not before: Lightning has put a handler of its own in place by now, which talks to the other processes from
        # inside whatever they were just talking about.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = self.signal or number

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if not self._is_alone and self._pace.is_due():
            self._asked = self._ask(trainer)  # answered while the batch is trained on, so that nobody waits

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if self._asked is not None or (self._is_alone and self.signal is not None):
            self._stop_if_told(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_told(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.world_size == 1:  # of several, each may have another number of batches here
            self._stop_if_told(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.received_sigterm and (trainer.world_size > 1 or not can_go_on_from_here(trainer)):
            self._postponed = True
            _set_stop(trainer, False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._postponed:
            self._postponed = False
            _set_stop(trainer, True)

    def _stop_if_told(self, trainer: Trainer) -> None:
        if self._is_told(trainer) and can_go_on_from_here(trainer):
            self.signal = self.signal or signal.SIGTERM
            _set_stop(trainer, True)

    def _is_told(self, trainer: Trainer) -> bool:
        """Whether this process, or another, was told to stop; all must ask."""
        if trainer.world_size == 1:
            return self.signal is not None
        # Processes that stopped behind different batches would wait for each other for ever.
        question, answer = self._asked or self._ask(trainer)
        self._asked = None
        question.wait()
        said, seconds = answer.tolist()
        self._pace.agree(seconds, is_urgent=bool(said))
        return bool(said)

    def _ask(self, trainer: Trainer) -> tuple[Any, Tensor]:
        """Ask the other processes whether one of them was told to stop; all must do so."""
        values = [float(self.signal is not None), self._pace.measure()]
        answer = torch.tensor(values, device=trainer.strategy.root_device)
        return torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MAX, async_op=True), answer

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):
            # Of the processes that Lightning has started itself, one that seems to have failed would have the others
            # killed, while the first one is still saving.
            code = exception.code if self.signal is None and exception.code else 128 + (self.signal or signal.SIGTERM)
            exception.code = code if trainer.is_global_zero else 0
        # Ctrl-C ends also what other callbacks do now, though Lightning ignores it behind the second one; a second
        # SIGTERM does not, until the trainer gives it back.
        _put_back(signal.SIGINT, self._handlers.get(signal.SIGINT))
        self._handlers.clear()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            # At the end of a fit Lightning has put back those from before it: the one that was found here is its own.
            if signal.getsignal(number) == self._on_signal:
                _put_back(number, handler)
        self._handlers.clear()
        # Asked when none of these handlers is left: one process that left alone would have the others wait for it.
        if stage == "fit" and self._is_told(trainer):
            self.signal = self.signal or signal.SIGTERM
            raise SIGTERMException(128 + self.signal)


def _put_back(number: int, handler: Any) -> None:
    if handler is not None:  # one that was not set by Python cannot be set again by it
        signal.signal(number, handler)


class _Pace:
    """How many batches lie between two questions to the other processes: the same on all, by what they answered.

    Args:
        interval: seconds that should.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._left = 0  # batches before the next question
        self._batches = 0  # since the last one
        self._asked_at: float | None = None

    def is_due(self) -> bool:
        """Whether to ask before the batch that begins now."""
        self._left -= 1
        self._batches += 1
        return self._left < 0

    def measure(self) -> float:
        """The seconds that this process took for a batch since the last question; infinity before the first."""
        now, before, batches = time.monotonic(), self._asked_at, max(1, self._batches)
        self._asked_at, self._batches = now, 0
        return math.inf if before is None else (now - before) / batches

    def agree(self, seconds: float, *, is_urgent: bool) -> None:
        """Count from the seconds of a batch on the slowest process; ask at once where a stop could not be made yet."""
        batches = self._interval / seconds if seconds > 0.0 else 0.0
        self._left = 0 if is_urgent else max(0, int(min(_MOST_BATCHES, batches)) - 1)


def _set_stop(trainer: Trainer, stop: bool) -> None:
    # Lightning looks at this behind every batch, when it has logged it, and can be stopped there in no other way.
    trainer._signal_connector.received_sigterm = stop
