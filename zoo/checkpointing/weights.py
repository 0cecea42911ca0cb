"""Weights for a network, out of any file that may hold some."""

from __future__ import annotations

from os import PathLike
from typing import TypeVar

import torch
from torch import nn

from zoo.checkpointing.checkpoints import read_contents
from zoo.checkpointing.files import CheckpointError, require_local_file

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def load_weights(network: AnyModule, path: str | PathLike[str]) -> AnyModule:
    """Give a network the weights in a file, and return it.

    Args:
        network: any module; changed in place.
        path: a local file, read with ``weights_only=True``: a checkpoint of a task around such a network, or the state
            dict of such a network or task that ``torch.save`` wrote or a safetensors file holds.

    Raises:
        CheckpointError: no such file, a URL, a file that cannot be read safely, or weights of another network.
    """
    local = require_local_file(path)
    contents = read_contents(local)
    weights = contents["state_dict"] if isinstance(contents, dict) and "state_dict" in contents else contents
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if isinstance(weights, dict) and not own.keys() & weights.keys():
        prefix = "network."  # as it is called in a task
        weights = {str(name).removeprefix(prefix): value for name, value in weights.items()}
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{local} holds no weights: neither a checkpoint of a task nor a state dict")
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*own, *saved]:
        if own.get(name) != saved.get(name):
            raise CheckpointError(
                f"the weights in {local} are another network's: {name} is {saved.get(name, 'missing')} in it and "
                f"{own.get(name, 'missing')} in the network"
            )
    try:
        network.load_state_dict(weights)
    except Exception as error:  # of a file made to be in the way: shapes do not say that values can be copied
        raise CheckpointError(f"the weights in {local} cannot be loaded ({type(error).__name__})") from error
    return network
