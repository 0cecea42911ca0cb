"""Where a network ends: its head, the last layer, and its trunk, all that comes before."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def head_of(network: nn.Module) -> str:
    """The name of a network's head: of its layers with weights, the one that was registered last.

    That is the linear layer that gives the outputs in each of :mod:`zoo.networks`, and in most others.

    Raises:
        ValueError: the network has no layer with weights.

    Example:
        >>> head_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        '2'
    """
    norms = (nn.LayerNorm, nn.RMSNorm)  # whose scales may have several dimensions, too
    layers: list[str] = [
        name
        for name, module in network.named_modules()
        if not isinstance(module, norms) and any(value.ndim >= 2 for value in module.parameters(recurse=False))
    ]
    if not layers:
        raise ValueError(f"a {type(network).__name__} has no layer with weights that could be its head")
    return layers[-1]


def trunk_of(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network that are not its head: what each has itself, without those in it, is the trunk.

    Raises:
        ValueError: there is no parameter among them: all of the network's weights are its head.
    """
    head = head_of(network)
    trunk = [
        module for name, module in network.named_modules() if name != head and not f"{name}.".startswith(f"{head}.")
    ]
    if not head or not any(True for module in trunk for _ in module.parameters(recurse=False)):
        raise ValueError(f"a {type(network).__name__} has no trunk: all of its weights are its head")
    return iter(trunk)
