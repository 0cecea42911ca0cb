"""Forecasts of series, beside what came."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks.figure_of_test import FigureOfTest, Kept, from_data, outputs_of, unscaled
from zoo.figures.sequences import forecasts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ForecastExamples(FigureOfTest):
    """Draws ``forecasts.png`` when a test has ended: the first series, what was seen, what followed and was forecast.

    For windows ``(batch, steps, 1)`` of two steps or more, targets ``(batch, horizon)`` or
    ``(batch, horizon, 1)``, in the unit of the windows, and a module that gives as many values; of anything else
    nothing is drawn. A data module may have

    * ``true_test_series(count)``: the first ``count`` series of its test loader without noise, windows and what
      follows, unscaled, ``(count, steps + horizon)``; taken where one process has the whole test;
    * ``mean`` and ``std``, by which it standardised, see :func:`zoo.callbacks.figure_of_test.unscaled`.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
        max_samples: series that are shown.

    Raises:
        ValueError: ``max_samples`` below 1.
    """

    figure_name = "forecasts"

    def __init__(self, title: str | None = None, directory: str | Path | None = None, max_samples: int = 6) -> None:
        super().__init__(title, directory, max_samples)

    def fits(self, kept: Kept) -> bool:
        if len(kept.inputs) > 1 or len(kept.targets) > 1:
            return False
        windows, targets = kept.inputs[0], kept.targets[0]
        return windows.ndim == 3 and windows.shape[1] > 1 and _is_series(windows) and _is_series(targets)

    def draw(self, trainer: Trainer, module: LightningModule, kept: list[Kept]) -> Figure | None:
        wanted = [part.targets[0].cpu().double().flatten(1) for part in kept]
        found = [outputs_of(trainer, module, part.inputs[0]) for part in kept]
        pairs = zip(found, wanted, strict=True)
        predicted = [
            output.reshape(target.shape)
            for output, target in pairs
            if output is not None and output.numel() == target.numel()
        ]
        windows = [unscaled(trainer, part.inputs[0]).flatten(1) for part in kept]
        if len(predicted) < len(found) or len({part.shape[1] for part in windows}) > 1:
            return None
        seen, targets, forecast = (torch.cat(parts).numpy() for parts in (windows, wanted, predicted))
        if not all(np.isfinite(values).all() for values in (seen, targets, forecast)):
            return None
        return forecasts(
            self.title_of(trainer, "forecasts"),
            seen,
            targets,
            forecast,
            _true_series(trainer, (len(seen), seen.shape[1] + targets.shape[1])),
        )


def _is_series(values: Tensor) -> bool:
    return values.is_floating_point() and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 1))


def _true_series(trainer: Trainer, shape: tuple[int, int]) -> np.ndarray | None:
    """Without noise, if the data module knows them and the order of the test is its own."""
    known = from_data(trainer, "true_test_series")
    if known is None or trainer.world_size > 1:
        return None
    series = np.asarray(known(shape[0]), dtype=np.float64)
    return series if series.shape == shape else None
