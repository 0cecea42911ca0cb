"""What a regression has fitted, and what it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks.figure_of_test import FigureOfTest, Kept, from_data, outputs_of, unscaled
from zoo.figures.regression import predicted_against_true, regression_fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLACES = 500


class RegressionFit(FigureOfTest):
    """Draws ``regression_fit.png`` when a test has ended.

    Of one feature: the fitted curve through the samples, the true function, and the residuals. Of several features, or
    several outputs: the predicted against the true targets, and the residuals.

    For targets that are floating-point numbers ``(samples, ...)``, and a module that gives as many a sample; of
    anything else nothing is drawn. A data module may have

    * ``true_values(features)``, the targets without noise: NumPy doubles ``(places, 1)``, unscaled, → as many numbers;
    * ``noise_variance``, the least mean squared error that is possible;
    * ``mean`` and ``std``, by which it standardised, see :func:`zoo.callbacks.figure_of_test.unscaled`.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
        max_samples: test samples that the mean squared error is of; the first 2,000 are shown.

    Raises:
        ValueError: ``max_samples`` below 1.
    """

    figure_name = "regression_fit"

    def fits(self, kept: Kept) -> bool:
        return len(kept.targets) == 1 and kept.targets[0].is_floating_point()

    def draw(self, trainer: Trainer, module: LightningModule, kept: list[Kept]) -> Figure | None:
        found = [outputs_of(trainer, module, *part.inputs) for part in kept]
        wanted = [part.targets[0].cpu().double() for part in kept]
        pairs = zip(found, wanted, strict=True)
        parts = [output for output, target in pairs if output is not None and output.numel() == target.numel()]
        if len(parts) < len(found):
            return None
        predicted, targets = (torch.cat([part.flatten() for part in each]).numpy() for each in (parts, wanted))
        if not np.isfinite([predicted, targets]).all() or not all(part.inputs[0].isfinite().all() for part in kept):
            return None
        noise_variance = from_data(trainer, "noise_variance")
        noise = float(noise_variance) if isinstance(noise_variance, int | float) else None
        has_one_feature = all(len(part.inputs) == 1 and part.inputs[0].numel() == len(part.inputs[0]) for part in kept)
        if not has_one_feature or len(targets) != sum(len(part.inputs[0]) for part in kept):
            title = self.title_of(trainer, "predicted against true")
            return predicted_against_true(title, targets, predicted, noise)
        features = torch.cat([part.inputs[0] for part in kept])
        places, fitted = _curve(trainer, module, features)
        true_values = from_data(trainer, "true_values")
        truth = None if true_values is None else np.asarray(true_values(places[:, None]), dtype=np.float64).reshape(-1)
        return regression_fit(
            self.title_of(trainer, "fit and residuals"),
            unscaled(trainer, features).flatten().numpy(),
            targets,
            predicted,
            (places, fitted),
            truth if truth is not None and truth.shape == places.shape else None,
            noise,
        )


def _curve(trainer: Trainer, module: LightningModule, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unscaled places over the features' range, and the module's values there."""
    low, high = (float(bound) for bound in features.double().aminmax())
    if low == high:
        low, high = low - 1.0, high + 1.0
    places = torch.linspace(low, high, _PLACES, dtype=torch.float64, device=features.device)
    places = places.reshape(-1, *features.shape[1:])
    fitted = outputs_of(trainer, module, places.to(features.dtype))
    assert fitted is not None  # it was a tensor of the samples
    return unscaled(trainer, places).flatten().numpy(), fitted.flatten().numpy()
