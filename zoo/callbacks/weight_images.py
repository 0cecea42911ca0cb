"""Weights that can be looked at: filters, and those of layers that see images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.parameter import is_lazy

from zoo.callbacks.figure import FigureCallback
from zoo.callbacks.figure_of_test import draws, kept_of
from zoo.figures.images import weight_images

_MOST = 64
_SEVERAL_CHANNELS = 8  # of filters over channels that are no colours


class FirstLayerFilters(FigureCallback):
    """Draws ``first_layer_filters.png`` when a test has ended: the kernels of the module's first 2-d convolution.

    Of one input channel as weights from dark blue over grey to light yellow, of three in colour, of others the first
    eight filters, for the first eight channels each. Of a module without such a layer nothing is drawn. At most 64 are
    shown.
    """

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layer = next((part for part in pl_module.modules() if isinstance(part, nn.Conv2d)), None)
        if layer is None or is_lazy(layer.weight) or not draws(trainer) or not layer.weight.isfinite().all():
            return
        weights = layer.weight.detach().cpu().double().numpy()  # (filters, channels, height, width)
        count, channels = weights.shape[:2]
        height, width = layer.kernel_size
        told = f"{count} filters of {height} x {width}"
        if channels not in (1, 3):
            weights = weights[:_SEVERAL_CHANNELS, :_SEVERAL_CHANNELS]
            names = [f"{index}, channel {channel}" for index, channel in np.ndindex(weights.shape[:2])]
            weights = weights.reshape(-1, height, width)
            told += f" over {channels} channels"
        else:
            weights = weights[:_MOST, 0] if channels == 1 else weights[:_MOST]
            names = list(map(str, range(len(weights))))
        if len(weights) < count * (1 if channels in (1, 3) else channels):
            told += ", some of them"
        title = self.title_of(trainer, "filters of the first layer")
        self.publish(trainer, "first_layer_filters", weight_images(title, weights, names, told))


class WeightImages(FigureCallback):
    """Draws ``weight_images.png`` when a test has ended: the weights of a linear layer that sees the images themselves.

    That is the module's first linear layer, where it has as many inputs as a test image has values, of one channel or
    of three, and the module has no convolution: the classes of a linear classifier, the hidden units of a perceptron.
    Of any other module, and of inputs that are no images, nothing is drawn. At most 64 are shown.

    Inputs are ``(batch, channels, height, width)`` or ``(batch, height, width)``.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
    """

    def __init__(self, title: str | None = None, directory: str | Path | None = None) -> None:
        super().__init__(title, directory)
        self._shape: tuple[int, ...] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shape = None

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._shape is None and (kept := kept_of(batch, 1)) is not None:
            self._shape = tuple(kept.inputs[0].shape[1:])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shape = self._shape or ()
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)) or min(shape[-2:]) < 2:
            return
        layers = [part for part in pl_module.modules() if isinstance(part, nn.Linear)]
        is_convolutional = any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in pl_module.modules())
        if not layers or is_convolutional or is_lazy(layers[0].weight) or not draws(trainer):
            return
        if layers[0].in_features != int(np.prod(shape)) or not layers[0].weight.isfinite().all():
            return
        weights = layers[0].weight.detach().cpu().double().numpy()[:_MOST]
        weights = weights.reshape(-1, *(shape if shape[0] == 3 and len(shape) == 3 else shape[-2:]))
        kind, plural = ("class ", "classes") if len(layers) == 1 else ("", "hidden units")
        names = [f"{kind}{index}" for index in range(len(weights))]
        count = layers[0].out_features
        told = "" if count == len(weights) else f"the first {len(weights)} of {count} {plural}"
        title = self.title_of(trainer, f"weights of the {plural}")
        self.publish(trainer, "weight_images", weight_images(title, weights, names, told))
