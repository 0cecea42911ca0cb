"""Learning-rate schedules that know the run's length, and the groups that weight decay is for.

A schedule here is a function of progress, the share of the run that is done, so nobody has to say how many steps
there will be: :meth:`zoo.tasks.Task.configure_optimizers` tells it, from ``trainer.estimated_stepping_batches``.
The peak is the optimizer's own ``lr``. :class:`Plateau` alone looks at a metric instead.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from zoo.networks.checks import check_choice, check_fraction

_POSITION = ("last_epoch", "base_lrs", "_step_count", "_last_lr")
_PLATEAU_POSITION = ("last_epoch", "_last_lr")
_PLATEAU_RECORD = ("best", "num_bad_epochs", "cooldown_counter")
_PLATEAU_METRIC = ("monitor", "mode")


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
        ValueError: ``warmup`` outside (0, 1), or a factor outside [0, 1].
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
        _check_factors(start_factor=start_factor, end_factor=end_factor)
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
        check_fraction(warmup=warmup)
        _check_factors(end_factor=end_factor)
        self.warmup = warmup
        self.end_factor = end_factor
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return _warm(progress, self.warmup)
        return _half_cosine(1.0, self.end_factor, (progress - self.warmup) / (1.0 - self.warmup))


class StepDecay(ProgressSchedule):
    """The optimizer's ``lr``, multiplied by ``gamma`` at each milestone.

    Args:
        optimizer: the optimizer.
        milestones: shares of the run, in (0, 1), rising.
        gamma: what the rate is multiplied by at each, greater than 0.
        total_steps: see :class:`ProgressSchedule`.

    Raises:
        ValueError: milestones or ``gamma`` out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[float] = (0.5, 0.75),
        gamma: float = 0.1,
        total_steps: int | None = None,
    ) -> None:
        if (
            not isinstance(milestones, Sequence)
            or not all(isinstance(share, Real) and 0.0 < share < 1.0 for share in milestones)
            or not all(earlier < later for earlier, later in pairwise(milestones))
        ):
            raise ValueError(f"milestones must be rising shares of the run, in (0, 1), got {milestones!r}")
        if not 0.0 < gamma < math.inf:
            raise ValueError(f"gamma must be a finite number greater than 0, got {gamma!r}")
        self.milestones = tuple(milestones)
        self.gamma = gamma
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        return self.gamma ** sum(progress >= share for share in self.milestones)


class Constant(ProgressSchedule):
    """The optimizer's ``lr`` throughout, after a linear warm-up if there is to be one.

    Args:
        optimizer: the optimizer.
        warmup: share of the run before the full rate, in [0, 1).
        total_steps: see :class:`ProgressSchedule`.

    Raises:
        ValueError: ``warmup`` outside [0, 1).
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.0, total_steps: int | None = None) -> None:
        check_fraction(warmup=warmup)
        self.warmup = warmup
        super().__init__(optimizer, total_steps)

    def factor(self, progress: float) -> float:
        return _warm(progress, self.warmup) if progress < self.warmup else 1.0


class Plateau(ReduceLROnPlateau):
    """The optimizer's ``lr``, lowered when a metric has not become better for a while.

    Args:
        optimizer: the optimizer.
        monitor: name of the metric, as it is logged.
        mode: whether less (``"min"``) or more (``"max"``) of it is better.
        factor: what the rate is multiplied by, in (0, 1).
        patience: epochs with a validation, without a better value, that are let pass before.
        threshold: by which share of the best value another must be better to count; 0 for one that may be negative,
            whose shares point the other way.
        min_lr: the lowest rate.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 3,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
    ) -> None:
        if not 0.0 < factor < 1.0:
            raise ValueError(f"factor must be greater than 0 and less than 1, got {factor!r}")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ValueError(f"patience must be an integer of at least 0, got {patience!r}")
        for name, value in (("threshold", threshold), ("min_lr", min_lr)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
        check_choice("mode", mode, ("min", "max"))
        self.monitor = monitor
        super().__init__(optimizer, mode=mode, factor=factor, patience=patience, threshold=threshold, min_lr=min_lr)
        for group in optimizer.param_groups:
            # As torch's other schedules do: a resumed run that is given another rate keeps what it was lowered by.
            group.setdefault("initial_lr", group["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, not what it was made with: a resumed run may be given another patience."""
        return {key: getattr(self, key) for key in _PLATEAU_POSITION + _PLATEAU_RECORD + _PLATEAU_METRIC}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The best value of one metric is no measure for another.
        same = all(state_dict[key] == getattr(self, key) for key in _PLATEAU_METRIC)
        keys = _PLATEAU_POSITION + (_PLATEAU_RECORD if same else ())
        super().load_state_dict({key: state_dict[key] for key in keys})


def weight_decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups, so that weight decay pulls at weights and leaves the rest alone.

    In the first group are the parameters of two or more dimensions, save those of norms, under the optimizer's own
    ``weight_decay``; in the second biases, the scales and shifts of norms and learnt activations, without any. Pulled
    towards zero these would not make the function simpler, only norms weaker.

    Args:
        module: any module; parameters that need no gradient are left out.

    Returns:
        The groups that have parameters, for any optimizer of ``torch.optim`` with a ``weight_decay``.

    Example:
        >>> weights, rest = weight_decay_groups(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
        >>> len(weights["params"]), len(rest["params"]), rest["weight_decay"]
        (1, 3, 0.0)
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # A layer norm over an image has a scale of as many dimensions.
    norms = [part for part in module.modules() if isinstance(part, (nn.LayerNorm, nn.RMSNorm))]
    scales = {id(parameter) for norm in norms for parameter in norm.parameters()}
    weights = [parameter for parameter in parameters if parameter.ndim >= 2 and id(parameter) not in scales]
    decayed = {id(parameter) for parameter in weights}
    groups: list[dict[str, Any]] = [
        {"params": weights},
        {"params": [parameter for parameter in parameters if id(parameter) not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _check_factors(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be a share of the optimizer's lr, from 0 to 1, got {value!r}")


def _warm(progress: float, warmup: float) -> float:
    # Never quite zero, so that the first step already learns.
    return max(progress, 1e-3 * warmup) / warmup


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
