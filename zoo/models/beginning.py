"""What every leaf begins with."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from zoo.checkpointing import load_weights
from zoo.networks import initialize
from zoo.tasks import Task

AnyModule = TypeVar("AnyModule", bound=nn.Module)

NOT_HYPERPARAMETERS = (*Task.not_hyperparameters, "weights")


def begin(network: AnyModule, init: str | None, weights: str | None) -> AnyModule:
    """The network, initialised by name, with the weights in a file if there is one."""
    network = initialize(network, init)
    return network if weights is None else load_weights(network, weights)
