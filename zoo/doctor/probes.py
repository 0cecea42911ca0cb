"""What is read off a batch, a module, and the graph of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.doctor.gradients import some
from zoo.doctor.graph import Classes, Units
from zoo.doctor.history import History, Look
from zoo.values import named_tensors

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_VAL_LOSSES = ("val/loss", "val_loss", "valid/loss", "valid_loss", "validation/loss", "validation_loss", "loss/val")


def num_samples(batch: Any) -> int:
    """Samples of a batch, as far as its tensors tell."""
    return next((len(tensor) for _, tensor in named_tensors(batch) if tensor.ndim), 0)


@torch.no_grad()
def describe_inputs(batch: Any) -> dict[str, float]:
    """Mean and standard deviation of the first tensor of numbers that are no integers; empty if there is none.

    Of features in columns, ``(samples, features)``, it is those of the one that is farthest from 0 and 1.
    """
    inputs = next((tensor for _, tensor in named_tensors(batch) if tensor.is_floating_point() and tensor.ndim), None)
    if inputs is None or inputs.layout != torch.strided or inputs.is_nested or inputs.numel() < 2:
        return {}
    values = inputs.detach().float()
    if values.ndim == 2 and len(values) > 1:
        means, stds = values.mean(dim=0), values.std(dim=0, correction=0)
        far = torch.maximum(means.abs(), stds)
        worst = int(far.argmax())
        if far[worst] > 10.0:
            return {"mean": float(means[worst]), "std": float(stds[worst]), "feature": float(worst)}
    return {"mean": float(values.mean()), "std": float(values.std(correction=0))}


def begins_with_norm(module: nn.Module) -> bool:
    """Whether the first layer with parameters or statistics normalises its inputs."""
    for layer in module.modules():
        if isinstance(layer, _NORMS):
            return True
        if next(layer.parameters(recurse=False), None) is not None:
            return False
    return False


def name_of_val_loss(metrics: Mapping[str, Tensor]) -> str | None:
    """What the validation loss is likely to be called."""
    known = next((name for name in _VAL_LOSSES if name in metrics), None)
    return known or next((name for name in sorted(metrics) if name.startswith("val") and name.endswith("loss")), None)


def see_classes(history: History, look: Look, batches: Iterable[Classes]) -> None:
    """Put the cross-entropies of a step's batches together."""
    losses, accuracies = [], []
    for classes in batches:
        history.num_classes = classes.num_classes
        losses.append(float(classes.cross_entropy))
        labels, predictions, accuracy = classes.count()
        if accuracy is not None:
            accuracies.append(accuracy)
        look.labels = _added(look.labels, labels)
        look.predictions = _added(look.predictions, predictions)
    if losses:
        look.cross_entropy = sum(losses) / len(losses)
    if accuracies:
        look.accuracy = sum(accuracies) / len(accuracies)


def _added(counts: list[int], more: list[int]) -> list[int]:
    return [a + b for a, b in zip(counts, more, strict=True)] if len(counts) == len(more) else list(more)


def see_units(history: History, look: Look, units: list[Units]) -> None:
    """Note which units were above zero in any batch of a step; waits for the device once."""
    if not units:
        return
    peaks: dict[str, Tensor] = {}
    for each in units:
        known = peaks.get(each.layer)
        values = each.peaks.float()
        peaks[each.layer] = values if known is None or len(known) != len(values) else torch.maximum(known, values)
    peaks = {name: peaks[name] for name in some(peaks)}
    device = next(iter(peaks.values())).device
    values = torch.cat([tensor.to(device) for tensor in peaks.values()]).cpu()
    parts = torch.split(values, [len(tensor) for tensor in peaks.values()])
    for layer, part in zip(peaks, parts, strict=True):
        look.dead[layer] = history.see_units(layer, (part > 0.0).tolist())
    look.peak, look.peak_limit = float(values.max()), min(each.limit for each in units)
