"""Initialisation by name, for any network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from zoo.networks.checks import check_choice

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_CONSTANT = 0.01
_STD = 0.02


def _kaiming(weight: Tensor, generator: Generator | None) -> None:
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu", generator=generator)


INITIALIZATIONS: dict[str, Callable[[Tensor, Generator | None], object]] = {
    "constant": lambda weight, _: nn.init.constant_(weight, _CONSTANT),
    "zeros": lambda weight, _: nn.init.zeros_(weight),
    "normal": lambda weight, generator: nn.init.normal_(weight, std=_STD, generator=generator),
    "xavier": lambda weight, generator: nn.init.xavier_uniform_(weight, generator=generator),
    "kaiming": _kaiming,
}


@torch.no_grad()
def initialize(network: AnyModule, name: str | None, generator: Generator | None = None) -> AnyModule:
    """Initialise a network's weights by name, its biases with zeros, and return it.

    A weight is a parameter of two or more dimensions, those of linear, convolution and recurrent layers and of
    embeddings. Norms and learnt activations keep the values they begin with.

    Args:
        network: any module; changed in place.
        name: ``"constant"`` (0.01; all units of a layer stay alike, so that it learns no more than one unit could),
            ``"zeros"`` (right for a linear model; a deeper one does not learn at all), ``"normal"`` (standard
            deviation 0.02), ``"xavier"`` (uniform; Glorot and Bengio 2010, for tanh and sigmoid), ``"kaiming"``
            (normal over the inputs; He et al. 2015, for ReLU), or ``None``, which leaves the network as it is, with
            torch's own initialisation.
        generator: of the random draws; ``None`` is torch's global one.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> initialize(nn.Linear(3, 1), "zeros")(torch.ones(2, 3)).tolist()
        [[0.0], [0.0]]
    """
    check_choice("init", name, INITIALIZATIONS, or_none=True)
    if name is None:
        return network
    draw = INITIALIZATIONS[name]
    for module in network.modules():
        own = dict(module.named_parameters(recurse=False))
        # A norm over more than one dimension has a scale that only looks like a weight.
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or not any(value.ndim >= 2 for value in own.values()):
            continue  # a norm, or a learnt activation
        for key, parameter in own.items():
            if parameter.ndim >= 2:
                draw(parameter, generator)
            elif "bias" in key:
                parameter.zero_()
    return network
