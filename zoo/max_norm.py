"""Max-norm regularisation: the weights into a unit cannot grow beyond a bound."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class MaxNorm:
    """Keeps the Euclidean norm of the weights into every unit at or below a bound, behind each step of an optimizer.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014, section 5.1: it lets dropout learn with large learning rates. Weights beyond the bound
    are shortened to it, others are left alone; biases are no part of it.

    It belongs to the optimizer's step, so that no checkpoint, no validation and no other process sees weights beyond
    the bound; it keeps no state, and does nothing where a gradient scaler leaves a step out.

    Args:
        weights: of linear or convolution layers, ``(units, ...)`` each; not sharded ones.
        limit: the bound, greater than 0; 3 to 4 are usual.

    Raises:
        ValueError: no such bound, no weights, or parameters of less than two dimensions.

    Example:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        >>> handle = MaxNorm([layer.weight], limit=5.0).attach(optimizer)
        >>> layer.weight.data, layer.weight.grad = torch.zeros(1, 2), torch.tensor([[-6.0, -8.0]])
        >>> optimizer.step()
        >>> layer.weight.tolist()
        [[3.0, 4.0]]
    """

    def __init__(self, weights: Iterable[Tensor], limit: float) -> None:
        check_limit(limit=limit)
        self.weights = list(weights)
        self.limit = float(limit)
        if not self.weights:
            raise ValueError("there are no weights to keep the norm of")
        for weight in self.weights:
            if weight.ndim < 2:
                raise ValueError(
                    f"weights must be of shape (units, ...), got {tuple(weight.shape)}: a bias has no norm to keep, "
                    "and sharded weights have lost their units"
                )

    def attach(self, optimizer: Optimizer) -> RemovableHandle:
        """Keep the norms from now on behind every step; ``remove()`` of what is returned ends it."""
        return optimizer.register_step_post_hook(self)

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for weight in self.weights:
            weight.renorm_(2, 0, self.limit)


def check_limit(**values: float) -> None:
    """Raise a ``ValueError`` unless every named value is a finite number greater than 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number greater than 0, got {value!r}")
