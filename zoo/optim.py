"""Learning-rate schedules that know the run's length.

A schedule here is a function of progress, the share of the run that is done, so nobody has to say how many steps
there will be: :meth:`zoo.tasks.Task.configure_optimizers` tells it, from ``trainer.estimated_stepping_batches``.
The peak is the optimizer's own ``lr``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_POSITION = ("last_epoch", "base_lrs", "_step_count", "_last_lr")


class UnknownLengthError(ValueError):
    """A schedule that has to know how long the run is, in a run of which nobody can tell."""


class ProgressSchedule(LRScheduler):
    """A schedule that multiplies each learning rate by a function of the run's progress.

    Stepped once an optimizer step. ``total_steps`` is set by the task before the first step; set it yourself in a
    loop of your own.

    Args:
        optimizer: the optimizer; its ``lr`` is the peak.
        total_steps: optimizer steps in the whole run, or ``None`` until it is known.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None) -> None:
        self.total_steps = total_steps
        super().__init__(optimizer)

    @abstractmethod
    def factor(self, progress: float) -> float:
        """The multiplier of the learning rate when the share ``progress`` in [0, 1] of the run is done."""

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch == 0:
            progress = 0.0
        elif not self.total_steps:
            raise RuntimeError(
                f"{type(self).__name__} does not know the run's length: set total_steps before the first step"
            )
        else:
            progress = min(1.0, self.last_epoch / self.total_steps)
        return [base_lr * self.factor(progress) for base_lr in self.base_lrs]

    def refresh(self) -> None:
        """Set the optimizer's rates anew, as ``total_steps`` and the peak are now."""
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, not what it was made with: a resumed run may be given another length or shape."""
        return {key: value for key, value in super().state_dict().items() if key in _POSITION}


class OneCycle(ProgressSchedule):
    """Up to the optimizer's ``lr`` and down to almost nothing, both along half a cosine.

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018.
    The momentum is left alone.

    Args:
        optimizer: the optimizer; its ``lr`` is the peak.
        warmup: share of the run before the peak, in (0, 1).
        start_factor: the first learning rate over the peak.
        end_factor: the last learning rate over the peak.
        total_steps: see :class:`ProgressSchedule`.

    Raises:
        ValueError: ``warmup`` outside (0, 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.3,
        start_factor: float = 0.04,
        end_factor: float = 4e-6,
        total_steps: int | None = None,
    ) -> None:
        if not 0.0 < warmup < 1.0:
            raise ValueError(f"warmup must be greater than 0 and less than 1, got {warmup!r}")
        self.warmup = warmup
        self.start_factor = start_factor
        self.end_factor = end_factor
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return _half_cosine(self.start_factor, 1.0, progress / self.warmup)
        return _half_cosine(1.0, self.end_factor, (progress - self.warmup) / (1.0 - self.warmup))


class WarmupCosine(ProgressSchedule):
    """A linear warm-up to the optimizer's ``lr``, then half a cosine down.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, without the restarts.

    Args:
        optimizer: the optimizer; its ``lr`` is the peak.
        warmup: share of the run before the peak, in [0, 1).
        end_factor: the last learning rate over the peak.
        total_steps: see :class:`ProgressSchedule`.

    Raises:
        ValueError: ``warmup`` outside [0, 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.05,
        end_factor: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        if not 0.0 <= warmup < 1.0:
            raise ValueError(f"warmup must be at least 0 and less than 1, got {warmup!r}")
        self.warmup = warmup
        self.end_factor = end_factor
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            # Never quite zero, so that the first step already learns.
            return max(progress, 1e-3 * self.warmup) / self.warmup
        return _half_cosine(1.0, self.end_factor, (progress - self.warmup) / (1.0 - self.warmup))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def optimizer_settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What each parameter group was given, without its parameters; ``lr`` is the rate that a schedule works from."""
    groups = []
    for group in optimizer.param_groups:
        given = {key: value for key, value in group.items() if key not in ("params", "initial_lr")}
        groups.append({**given, "lr": group.get("initial_lr", group["lr"])})
    return groups


def apply_changed_settings(
    optimizer: Optimizer,
    scheduler: object,
    before: list[dict[str, Any]],
    now: list[dict[str, Any]],
) -> dict[str, tuple[Any, Any]]:
    """Let settings that differ from those of the run's first part win over the restored state.

    A restored optimizer state brings back every value of every group, so that a rate given anew would be ignored.
    Values that were not changed are left as restored, whatever a schedule or a callback made of them.

    Args:
        optimizer: with the restored state.
        scheduler: its schedule, restored, or ``None``.
        before: :func:`optimizer_settings` when the run began.
        now: the same, of the optimizer before the state was restored.

    Returns:
        The changes, ``{name: (before, now)}``.
    """
    changes: dict[str, tuple[Any, Any]] = {}
    for index, (group, old, new) in enumerate(zip(optimizer.param_groups, before, now, strict=True)):
        for key, value in new.items():
            # A checkpoint brings tuples back as they were, a configuration file may bring lists.
            if key not in old or _plain(old[key]) == _plain(value):
                continue
            changes[key] = (old[key], value)
            if key == "lr" and "initial_lr" in group:
                group["lr"] *= value / old["lr"] if old["lr"] else 1.0
                group["initial_lr"] = value
                base_lrs = getattr(scheduler, "base_lrs", None)
                if base_lrs is not None:
                    base_lrs[index] = value
            else:
                group[key] = value
    return changes


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
