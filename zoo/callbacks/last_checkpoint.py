"""The checkpoint that a run goes on from, written wherever a resume can be exact to the bit."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

_Place = Literal["batch", "validation", "epoch"]

_CLOCK_INTERVAL = 10  # steps between two looks at the clock where several processes have to agree on it


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: at the end of every epoch, inside long ones, and when the run is told to stop.

    The one before it stays as ``previous.ckpt``, where the file system has hard links, for the case that the last one
    is damaged.

    A run resumed from it ends with the same weights, optimizer state and logged rows as one that was never stopped, if
    its loader has a state (a ``datamodules.EpochLoader`` has, or any with ``state_dict`` and ``load_state_dict``) and
    its draws do not depend on how it came to its step (:class:`zoo.callbacks.StepSeeding`). It is the same callback
    that takes the resumed trainer to where the checkpoint was written: a trainer that resumes needs it too. Resume with
    ``ckpt_path`` and the file's path; for ``"last"`` Lightning looks for the files of its own callback.

    What belongs to a step is complete before its checkpoint is: the file is written when the loggers have had the
    step's rows. Where a validation is due, the checkpoint is that before it, and a resumed run validates from its
    first batch. A stop is the ``SIGTERMException`` that Lightning raises between two batches after a SIGTERM, and with
    :class:`zoo.callbacks.GracefulStop` after Ctrl-C.

    Args:
        directory: where ``last.ckpt`` goes.
        every_n_steps: also after each so many optimizer steps; ``None``: by the clock alone.
        every_seconds: also inside an epoch when the last one is older than this.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, directory: _PATH, every_n_steps: int | None = None, every_seconds: float = 60.0) -> None:
        if every_n_steps is not None and (isinstance(every_n_steps, bool) or every_n_steps < 1):
            raise ValueError(f"every_n_steps must be at least 1, or None, got {every_n_steps!r}")
        if not every_seconds > 0.0:
            raise ValueError(f"every_seconds must be greater than 0, got {every_seconds!r}")
        self.path = Path(directory) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.every_seconds = every_seconds
        # Where a checkpoint is being written, by this callback or another, or where the resumed one was.
        self._place: _Place = "epoch"
        self._resumed = False
        self._is_training = False
        self._wrote = False
        self._pending: dict[str, Any] | None = None
        self._epoch_is_complete = False
        self._batch_was_validated = False
        self._saved_step = 0
        self._saved_at = 0.0

    # ------------------------------------------------------------------ where a checkpoint is due

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pending, self._wrote, self._epoch_is_complete, self._batch_was_validated = None, False, False, False
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._is_training = True
        if self._resumed:
            self._resumed = False
            _go_to(trainer, self._place)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch_was_validated = False
        self._place = "batch"  # of what other callbacks write from here on
        self._write_pending(trainer)  # Lightning has logged the step by now, and nothing has changed since

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.should_stop and trainer.world_size == 1 and not self._is_due(trainer):
            return  # asked after every batch, so the answer that nearly always holds comes first
        if not can_go_on_from_here(trainer):
            return
        if _is_cut_short(trainer) or (trainer.global_step != self._saved_step and self._is_due(trainer)):
            self._pending = self._capture(trainer, "batch")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._batch_was_validated, self._place = True, "validation"
        if _is_cut_short(trainer):
            return  # the validation that Lightning adds then is no part of the run that goes on
        pending, self._pending = self._pending, None
        if pending is not None and can_go_on_from_here(trainer):
            self._write(trainer, self._capture(trainer, "validation"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._pending is None and _is_cut_short(trainer):
            self._batch_was_validated = False  # Lightning has not counted the step yet
            self._pending = self._capture(trainer, "batch")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _is_cut_short(trainer):
            self._epoch_is_complete, self._pending = True, None

    # Not in the hook before: what Lightning logs of an epoch, and the schedules that look at a metric, come behind it.
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_epoch(trainer)
        self._write_pending(trainer)
        self._is_training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Before training a resumed run has not found its place yet, and a test may be of another checkpoint's weights.
        is_training, self._is_training = self._is_training, False
        if not is_training or not isinstance(exception, SIGTERMException):
            return
        if not trainer.global_step or not can_go_on_from_here(trainer):
            return
        progress = trainer.fit_loop.epoch_progress.current
        if trainer.validating:
            place: _Place = "validation"
        else:
            place = "epoch" if progress.completed == progress.ready else "batch"
        self._write(trainer, self._capture(trainer, place))

    # ------------------------------------------------------------------ how one is written

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        old = time.monotonic() - self._saved_at > self.every_seconds
        if trainer.world_size == 1:
            return old
        return trainer.global_step % _CLOCK_INTERVAL == 0 and trainer.strategy.reduce_boolean_decision(old, all=False)

    def _save_epoch(self, trainer: Trainer) -> None:
        if self._epoch_is_complete:
            self._epoch_is_complete = False
            self._write(trainer, self._capture(trainer, "epoch"))

    def _write_pending(self, trainer: Trainer) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._write(trainer, pending)

    def _capture(self, trainer: Trainer, place: _Place) -> dict[str, Any]:
        """The checkpoint of this moment; its weights are the live ones, not copies."""
        self._place = place
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        # What Trainer.save_checkpoint writes, which has no way to write it a moment later.
        checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        # Copies: a validation may change them before they are written.
        checkpoint["callbacks"] = copy.deepcopy(checkpoint["callbacks"])
        loops = checkpoint["loops"]["fit_loop"]
        if place == "validation":
            _rewind_validation(loops["epoch_loop.val_loop.batch_progress"])
        elif place == "epoch":
            _complete(loops["epoch_progress"])
            checkpoint["epoch"] -= 1  # the one that has just ended, as in every checkpoint written at its end
        elif self._batch_was_validated:
            # Lightning will skip the validation, and count the step a second time as it does.
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        return checkpoint

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero and self._wrote:  # one that was there before may be the damaged one
            _link(self.path, self.path.with_name("previous.ckpt"))
        self._wrote = True
        trainer.strategy.save_checkpoint(checkpoint, self.path)
        trainer.strategy.barrier("LastCheckpoint")

    def state_dict(self) -> dict[str, Any]:
        return {"place": self._place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._place, self._resumed = state_dict["place"], True

    @property
    def best_model_path(self) -> str:
        """Where ``last.ckpt`` is: the one that Lightning tests if no other callback keeps a better one."""
        return str(self.path)


def can_go_on_from_here(trainer: Trainer) -> bool:
    """Whether a checkpoint of this moment, between two batches of a fit, holds all there is.

    The gradients of a step that is not complete are in none; and under ``max_steps`` a resumed run does not begin the
    last step's validation.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    complete = progress.current.ready % trainer.accumulate_grad_batches == 0 or progress.is_last_batch
    return complete and not (trainer.validating and trainer.global_step == trainer.max_steps)


def _is_cut_short(trainer: Trainer) -> bool:
    """Whether the fit is ending inside an epoch, by ``max_time`` or by whoever has set ``should_stop``."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    inside = not progress.is_last_batch and progress.current.ready < trainer.num_training_batches
    return inside and trainer.should_stop and trainer.fit_loop._can_stop_early


def _link(file: Path, name: Path) -> None:
    """Give a file a second name, in place of whatever has it."""
    beside = name.with_name(f".{name.name}.{os.getpid()}.new")
    with contextlib.suppress(OSError):  # there is no file yet, or the file system has no links
        beside.unlink(missing_ok=True)
        beside.hardlink_to(file)
        beside.replace(name)
        beside.unlink(missing_ok=True)  # of two names of one file, which the system leaves both


def _rewind_validation(progress: dict[str, Any]) -> None:
    """Let a validation that may have begun look as if its first batch were about to be."""
    before = progress["total"]["completed"] - progress["current"]["completed"]
    progress["total"] = {"ready": before + 1, "started": before + 1, "processed": before, "completed": before}
    progress["current"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress["is_last_batch"] = False


def _complete(progress: dict[str, Any]) -> None:
    """Let an epoch that may have got ready not have."""
    for counts in progress.values():
        counts.update(ready=counts["completed"], started=counts["completed"], processed=counts["completed"])


def _go_to(trainer: Trainer, place: _Place) -> None:
    """Take the loops of a trainer that has restored them to where the checkpoint was written."""
    loop = trainer.fit_loop
    batches: Any = loop.epoch_loop.batch_progress
    validation: Any = loop.epoch_loop.val_loop.batch_progress.current
    if place == "epoch" or not batches.is_last_batch or validation.completed < validation.ready:
        # Schedules that look at a metric would otherwise not look at the end of the first epoch. Where all of it is
        # done, its last validation included, as in other callbacks' checkpoints, there is nothing left to look at.
        loop._restarting = False
    if place == "epoch":
        loop.epoch_loop.restarting = False  # under max_steps Lightning takes every resume for one inside an epoch
    elif place == "validation":
        # Behind a batch that was begun and never completed the count would show every later checkpoint as one inside
        # a validation.
        counts: Any = loop.epoch_loop.val_loop.batch_progress.total
        counts.ready = counts.started = counts.completed
