"""What a classifier of two features makes of the plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks.figure_of_test import FigureOfTest, Kept, outputs_of, unscaled
from zoo.figures.boundary import decision_boundary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHUNK = 10_000
_MARGIN = 0.12  # of the samples' range, on each side


class DecisionBoundary(FigureOfTest):
    """Draws ``decision_boundary.png`` when a test has ended: probabilities over the plane, boundary, samples, accuracy.

    For inputs ``(samples, 2)`` and targets ``(samples,)`` that are class indices or booleans, and a module that gives
    logits: ``(samples,)`` or ``(samples, 1)`` of class 1, whose probability is ``module.activate(logits)`` where there
    is such a method, else their sigmoid, and which is predicted above ``module.threshold``, else above 0.5; or
    ``(samples, classes)``. Of anything else nothing is drawn. The axes are in the data's own units, see
    :func:`zoo.callbacks.figure_of_test.unscaled`.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
        max_samples: test samples that the accuracy is of; the first 1,000 are shown.
        resolution: columns and rows of the grid on which the module is asked.

    Raises:
        ValueError: ``max_samples`` below 1, or ``resolution`` below 2.
    """

    figure_name = "decision_boundary"

    def __init__(
        self,
        title: str | None = None,
        directory: str | Path | None = None,
        max_samples: int = 10_000,
        resolution: int = 200,
    ) -> None:
        super().__init__(title, directory, max_samples)
        if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 2:
            raise ValueError(f"resolution must be a whole number of at least 2, got {resolution!r}")
        self.resolution = resolution

    def fits(self, kept: Kept) -> bool:
        [features, *lengths], [labels, *more] = kept
        return (
            not lengths
            and not more
            and features.ndim == 2
            and features.shape[1] == 2
            and labels.ndim == 1
            and not labels.is_floating_point()
        )

    def draw(self, trainer: Trainer, module: LightningModule, kept: list[Kept]) -> Figure | None:
        features = torch.cat([part.inputs[0] for part in kept])
        labels = torch.cat([part.targets[0] for part in kept]).cpu().long()
        low, high = features.double().aminmax(dim=0)
        margin = torch.where(high > low, _MARGIN * (high - low), torch.ones_like(low))
        places = torch.linspace(0.0, 1.0, self.resolution, dtype=torch.float64, device=features.device)[:, None]
        lines = (low - margin) + places * (high - low + 2.0 * margin)  # (resolution, 2)
        grid = torch.cartesian_prod(lines[:, 1], lines[:, 0]).flip(1)  # row by row
        probabilities = _probabilities(trainer, module, grid.to(features.dtype))
        predicted = _probabilities(trainer, module, features)
        if probabilities is None or predicted is None or not features.isfinite().all():
            return None
        threshold = float(getattr(module, "threshold", 0.5))
        classes = predicted > threshold if predicted.ndim == 1 else predicted.argmax(dim=1)
        if predicted.ndim == 2 and predicted.shape[1] == 2:
            probabilities, threshold = probabilities[:, 1], 0.5
        x, y = unscaled(trainer, lines).T.numpy()
        return decision_boundary(
            self.title_of(trainer, "decision boundary"),
            x,
            y,
            probabilities.reshape(len(y), len(x), *probabilities.shape[1:]).numpy(),
            unscaled(trainer, features).numpy(),
            labels.numpy(),
            classes.long().numpy(),
            threshold,
        )


def _probabilities(trainer: Trainer, module: LightningModule, features: Tensor) -> Tensor | None:
    """Of class 1, ``(samples,)``, or of each class, ``(samples, classes)``."""
    found = [outputs_of(trainer, module, chunk) for chunk in torch.split(features, _CHUNK)]
    parts = [part for part in found if part is not None and part.ndim <= 2]
    if len(parts) < len(found):
        return None
    logits = torch.cat(parts)
    if logits.ndim == 2 and logits.shape[1] != 1:
        probabilities = logits.softmax(dim=1)
    else:
        probabilities = getattr(module, "activate", torch.sigmoid)(logits.reshape(len(logits)))
    return probabilities if probabilities.isfinite().all() else None
