"""The one number that makes a classifier's probabilities mean what they say."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from zoo.checkpointing import CheckpointError
from zoo.tasks.base import Task

TEMPERATURE_KEY = "temperature"
"""Where a checkpoint holds it. Not among the weights: these fit the same models with and without one."""


class TemperatureScaling(Task):
    """A task whose outputs are logits, which a temperature divides on their way to probabilities.

    Guo et al., "On calibration of modern neural networks", ICML 2017. It is 1 until :func:`zoo.calibration.calibrate`
    fits it, is kept in checkpoints, and comes back with them. Loss and decisions, and so accuracy, are those of the
    logits as they are. A temperature belongs to the weights that it was fitted to: training sets it back to 1.
    """

    _temperature = 1.0

    @property
    def temperature(self) -> float:
        """Greater than 1 makes probabilities less sure, less than 1 surer.

        Raises:
            ValueError: when set to anything but a positive, finite number.
        """
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
            raise ValueError(f"temperature must be a positive number, got {value!r:.100}")
        self._temperature = float(value)

    def calibrated(self, outputs: Tensor) -> Tensor:
        return outputs if self.temperature == 1.0 else outputs / self.temperature

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.temperature = 1.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.temperature != 1.0:
            checkpoint[TEMPERATURE_KEY] = self.temperature

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        try:
            self.temperature = checkpoint.get(TEMPERATURE_KEY, 1.0)
        except ValueError as error:
            raise CheckpointError(f"the checkpoint cannot be used: its {error}") from error
