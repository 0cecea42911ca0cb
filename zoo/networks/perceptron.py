"""One neuron."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.networks.checks import check_choice, check_features, check_positive

PERCEPTRON_ACTIVATIONS = ("sigmoid", "step")


class Perceptron(nn.Module):
    """A weighted sum, a bias, and an activation for whoever wants to know the answer.

    Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain",
    Psychological Review 65(6), 1958. It draws a straight line between two classes, and learns nothing that needs
    another boundary, such as XOR (Minsky and Papert, "Perceptrons", 1969).

    Args:
        in_features: numbers a sample.
        activation: what :meth:`predict` makes of a logit: ``"sigmoid"``, a probability, or ``"step"``, 1 where the
            logit is at least 0 and 0 elsewhere. ``forward`` gives the logit in either case.

    Raises:
        ValueError: an unknown activation, or a size below 1.
        ShapeError: from ``forward``, for inputs of another width.

    Shape:
        ``(batch, ...)`` float with ``in_features`` numbers a sample → logits ``(batch, 1)``.

    Example:
        >>> neuron = Perceptron(2, activation="step")
        >>> _ = neuron.requires_grad_(False).linear.weight.copy_(torch.tensor([[1.0, 1.0]]))
        >>> _ = neuron.linear.bias.fill_(-1.5)  # both inputs on: the AND function
        >>> neuron.predict(torch.tensor([[0.0, 1.0], [1.0, 1.0]])).tolist()
        [[0.0], [1.0]]
    """

    def __init__(self, in_features: int = 2, activation: str = "sigmoid") -> None:
        super().__init__()
        check_positive(in_features=in_features)
        check_choice("activation", activation, PERCEPTRON_ACTIVATIONS)
        self.activation = activation
        self.linear = nn.Linear(in_features, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.linear(check_features(inputs, self.linear.in_features))
        return logits

    def activate(self, logits: Tensor) -> Tensor:
        """The activation of logits of any shape."""
        return torch.sigmoid(logits) if self.activation == "sigmoid" else (logits >= 0).to(logits.dtype)

    def predict(self, inputs: Tensor) -> Tensor:
        """``(batch, 1)``: probabilities of class 1 for ``"sigmoid"``, 0 or 1 for ``"step"``."""
        return self.activate(self(inputs))
