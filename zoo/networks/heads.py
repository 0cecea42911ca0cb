"""Where a network ends: its head, the last layer, and its trunk, all that comes before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from zoo.networks.ensemble import Ensemble


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
        raise ValueError(f"{type(network).__name__} has no layer with weights that could be its head")
    return layers[-1]


def heads_of(network: nn.Module) -> list[str]:
    """The names of all heads: of an :class:`zoo.networks.Ensemble` those of its members, else the one head.

    Raises:
        ValueError: the network, or a member, has no layer with weights.
    """
    if not isinstance(network, Ensemble):
        return [head_of(network)]
    return [
        f"members.{number}.{name}".rstrip(".")  # of a member that is nothing but its head the name is empty
        for number, member in enumerate(network.members)
        for name in heads_of(member)
    ]


def is_in_head(name: str, heads: Iterable[str]) -> bool:
    """Whether a module or parameter of this name is one of the heads, or belongs to one."""
    return any(f"{name}.".startswith(f"{head}." if head else "") for head in heads)


def trunk_of(network: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network that are not in a head: what each has itself, without those in it, is the trunk.

    Raises:
        ValueError: there is no parameter among them: all of the network's weights are its head.
    """
    heads = heads_of(network)
    trunk = [module for name, module in network.named_modules() if not is_in_head(name, heads)]
    if not any(True for module in trunk for _ in module.parameters(recurse=False)):
        raise ValueError(f"{type(network).__name__} has no trunk: all of its weights are its head")
    return iter(trunk)
