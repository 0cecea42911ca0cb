"""The training loss, kept where it was computed and read as seldom as possible."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; names the step.

    Args:
        value: of the loss.
        step: the optimizer steps taken before it.
        advice: what to do, or what is left.
        kind: whose loss it is, ``"training"`` or ``"validation"``.
    """

    def __init__(self, value: float, step: int, advice: str = "", kind: str = "training") -> None:
        self.value = value
        self.step = step
        self.kind = kind
        super().__init__(
            f"the {kind} loss became {value} at step {step}: lower the learning rate or clip the gradients "
            "(gradient_clip_val=1.0), and look for extreme values, or labels that do not fit, in the data"
            f"{advice and '; '}{advice}"
        )


class TrainingLossState(TypedDict):
    """What a checkpoint holds of a :class:`TrainingLoss`."""

    window_sum: float
    window_count: int
    epoch_sum: float
    epoch_count: int


class TrainingLoss:
    """Means of the training loss since the last log point and since the start of the epoch.

    :meth:`keep` puts a loss aside without reading it, so that a GPU is not waited for; :meth:`flush` reads all that
    was put aside at once. On a CPU reading costs nothing, and a loss that is not finite is refused at once, while
    the weights are still good; on other devices it is found at the next flush, and still the right step is named.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, int, int]] = []
        self._state = TrainingLossState(window_sum=0.0, window_count=0, epoch_sum=0.0, epoch_count=0)

    def keep(self, loss: Tensor, size: int, step: int) -> None:
        """Put aside the mean loss of ``size`` samples at ``step``.

        Raises:
            NonFiniteLossError: on a CPU, if ``loss`` is not finite.
        """
        if loss.device.type == "cpu":
            value = loss.item()
            if not math.isfinite(value):
                raise NonFiniteLossError(value, step)
        else:
            loss = loss.clone()  # a captured graph writes the next loss into the same memory
        self._pending.append((loss, size, step))

    def flush(self) -> None:
        """Read what was put aside.

        Raises:
            NonFiniteLossError: if a loss is not finite.
        """
        if not self._pending:
            return
        values = torch.stack([loss for loss, _, _ in self._pending]).tolist()  # the one wait for the device
        pending, self._pending = self._pending, []
        for value, (_, size, step) in zip(values, pending, strict=True):
            if not math.isfinite(value):
                raise NonFiniteLossError(value, step)
            self._state["window_sum"] += value * size
            self._state["window_count"] += size
            self._state["epoch_sum"] += value * size
            self._state["epoch_count"] += size

    def window_mean(self) -> float:
        """The mean since the last call."""
        self.flush()
        mean = self._state["window_sum"] / max(1, self._state["window_count"])
        self._state["window_sum"], self._state["window_count"] = 0.0, 0
        return mean

    def epoch_mean(self) -> tuple[float, int]:
        """The mean since :meth:`start_epoch`, and the number of samples it is over."""
        self.flush()
        count = self._state["epoch_count"]
        return self._state["epoch_sum"] / max(1, count), count

    def start_epoch(self) -> None:
        """Begin the epoch's mean anew; that since the last log point goes on."""
        self.flush()
        self._state["epoch_sum"], self._state["epoch_count"] = 0.0, 0

    def start_run(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self._state = TrainingLossState(window_sum=0.0, window_count=0, epoch_sum=0.0, epoch_count=0)

    def state_dict(self) -> TrainingLossState:
        """The sums, for a checkpoint inside an epoch."""
        self.flush()
        return self._state.copy()

    def load_state_dict(self, state: TrainingLossState) -> None:
        """Go on from the sums of :meth:`state_dict`."""
        self._pending.clear()
        self._state = state.copy()
