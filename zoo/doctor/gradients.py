"""How large gradients are."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.doctor.history import MAX_LAYERS


@torch.no_grad()
def parameter_norms(module: nn.Module, optimizer: Optimizer, scale: float = 1.0) -> dict[str, float]:
    """The Euclidean norm of the gradient of each parameter that an optimizer trains, 0.0 where it has none.

    The device is waited for once.

    Args:
        module: whose parameters are looked at, in its order.
        optimizer: whose parameters they have to be.
        scale: by which the gradients are too large, as under a gradient scaler.
    """
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = [
        (name, parameter.grad)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) in trained
    ]
    norms = {name: _norm(gradient) for name, gradient in named if gradient is not None}
    if not norms:
        return dict.fromkeys((name for name, _ in named), 0.0)
    device = next(iter(norms.values())).device
    values = torch.stack([norm.to(device) for norm in norms.values()]).tolist()
    read = dict(zip(norms, values, strict=True))
    return {name: read.get(name, 0.0) / scale for name, _ in named}


def _norm(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    # In 32 bits: the sum of the squares of half of them overflows early.
    dtype = None if gradient.dtype in (torch.float32, torch.float64) or gradient.is_complex() else torch.float32
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
    return norm.float()


def by_layer(norms: dict[str, float]) -> dict[str, float]:
    """Norms of parameters put together by the layer that has them; of very many layers some, evenly."""
    layers: dict[str, list[float]] = {}
    for name, norm in norms.items():
        layers.setdefault(name.rpartition(".")[0] or name, []).append(norm)
    return {name: total(layers[name]) for name in some(layers)}


def total(norms: Iterable[float]) -> float:
    """The norm of all, from the norms of each."""
    return math.hypot(*norms)


def some(names: Iterable[str], limit: int = MAX_LAYERS) -> list[str]:
    """At most ``limit`` names, the first and the last among them."""
    names = list(names)
    if len(names) <= limit:
        return names
    return [names[round(index * (len(names) - 1) / (limit - 1))] for index in range(limit)]


def unused_parameters(module: nn.Module, optimizers: Iterable[Optimizer]) -> list[str]:
    """Names of the parameters that want a gradient and are in no optimizer."""
    trained = {
        id(parameter) for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]
    }
    return [name for name, value in module.named_parameters() if value.requires_grad and id(value) not in trained]
