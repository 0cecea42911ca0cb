"""The training loss, kept where it was computed and read as seldom as possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor

from zoo.values import NonFiniteLossError

Reduce = Callable[[list[float]], list[float]]
"""Makes sums over all ranks of those of one."""


def _of_one_rank(sums: list[float]) -> list[float]:
    return sums


class TrainingLossState(TypedDict):
    """What a checkpoint holds of a :class:`TrainingLoss`; counts are of samples, or sums of their weights."""

    window_sum: float
    window_count: float
    epoch_sum: float
    epoch_count: float


class TrainingLoss:
    """Means of the training loss since the last log point and since the start of the epoch.

    :meth:`keep` puts a loss aside without reading it, so that a GPU is not waited for; :meth:`flush` reads all that
    was put aside at once. On a CPU reading costs nothing, and a loss that is not finite is refused at once, while
    the weights are still good; on other devices it is found at the next flush, and still the right step is named.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, Tensor | float, int, int | None, int | None]] = []
        self._state = TrainingLossState(window_sum=0.0, window_count=0, epoch_sum=0.0, epoch_count=0)

    def keep(
        self, loss: Tensor, size: Tensor | float, step: int, epoch: int | None = None, batch: int | None = None
    ) -> None:
        """Put aside the mean loss of a batch at ``step``, and where in its epoch that is.

        ``size`` is the number of its samples, or the sum of their weights.

        Raises:
            NonFiniteLossError: on a CPU, if ``loss`` is not finite.
        """
        if loss.device.type == "cpu":
            self._add(loss.item(), size.item() if isinstance(size, Tensor) else size, step, epoch, batch)
        else:
            # A copy: a captured graph writes the next loss into the same memory.
            self._pending.append((loss.clone(), size, step, epoch, batch))

    def _add(self, value: float, weight: float, step: int, epoch: int | None, batch: int | None) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(value, step, epoch=epoch, batch=batch)
        state = self._state
        state["window_sum"] += value * weight
        state["window_count"] += weight
        state["epoch_sum"] += value * weight
        state["epoch_count"] += weight

    def flush(self) -> None:
        """Read what was put aside.

        Raises:
            NonFiniteLossError: if a loss is not finite.
        """
        if not self._pending:
            return
        values = torch.stack([loss for loss, *_ in self._pending]).tolist()  # the one wait for the device
        pending, self._pending = self._pending, []
        weights = _as_numbers([weight for _, weight, *_ in pending])
        for value, weight, (_, _, step, epoch, batch) in zip(values, weights, pending, strict=True):
            self._add(value, weight, step, epoch, batch)

    def window_mean(self, reduce: Reduce = _of_one_rank) -> float:
        """The mean since the last call, over all ranks with a ``reduce`` that sums over them."""
        self.flush()
        total, count = reduce([self._state["window_sum"], self._state["window_count"]])
        self._state["window_sum"], self._state["window_count"] = 0.0, 0
        return total / count if count else 0.0

    def epoch_mean(self, reduce: Reduce = _of_one_rank) -> tuple[float, float]:
        """The mean since :meth:`start_epoch`, and the samples, or the weight, it is over; likewise."""
        self.flush()
        total, count = reduce([self._state["epoch_sum"], self._state["epoch_count"]])
        return (total / count if count else 0.0), count

    def start_epoch(self) -> None:
        """Begin the epoch's mean anew; that since the last log point goes on."""
        self.flush()
        self._state["epoch_sum"], self._state["epoch_count"] = 0.0, 0

    def start_run(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self._state = TrainingLossState(window_sum=0.0, window_count=0, epoch_sum=0.0, epoch_count=0)

    def state_dict(self, reduce: Reduce = _of_one_rank) -> TrainingLossState:
        """The sums, for a checkpoint inside an epoch; likewise."""
        self.flush()
        state = self._state
        sums = reduce([state["window_sum"], state["window_count"], state["epoch_sum"], state["epoch_count"]])
        return TrainingLossState(window_sum=sums[0], window_count=sums[1], epoch_sum=sums[2], epoch_count=sums[3])

    def load_state_dict(self, state: TrainingLossState) -> None:
        """Go on from the sums of :meth:`state_dict`."""
        self._pending.clear()
        self._state = state.copy()


def _as_numbers(weights: list[Tensor | float]) -> list[float]:
    """Numbers as they are, tensors read all at once."""
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    read = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(read) if isinstance(weight, Tensor) else weight for weight in weights]
