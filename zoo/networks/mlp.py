"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from zoo.networks.blocks import make_activation
from zoo.networks.checks import ShapeError, check_choice, check_features, check_fraction, check_positive
from zoo.networks.dropout import Dropout

MLP_NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """Hidden layers, each linear, norm, activation, dropout, and a linear layer at the end.

    Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323, 1986.

    Args:
        in_features: numbers a sample; images and the like are flattened.
        hidden: width of each hidden layer, at least one.
        out_features: outputs a sample.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        norm: ``"batch"`` (Ioffe and Szegedy 2015), ``"layer"`` (Ba et al. 2016), or ``None``.
        dropout: probability of dropping a hidden unit, in [0, 1) (Srivastava et al. 2014).
        input_dropout: probability of dropping an input, in [0, 1).

    Raises:
        ValueError: a name or value out of range, or no hidden layer.
        ShapeError: from ``forward``, for inputs of another width, or a single sample to train batch norm with.

    Shape:
        ``(batch, ...)`` float with ``in_features`` numbers a sample → ``(batch, out_features)``.

    Example:
        >>> import torch
        >>> MLP(784, (128, 64), 10, norm="batch", dropout=0.2)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: str = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, out_features=out_features)
        check_fraction(dropout=dropout, input_dropout=input_dropout)
        check_choice("norm", norm, MLP_NORMS, or_none=True)
        if isinstance(hidden, (str, bytes)) or not isinstance(hidden, Sequence):
            raise ValueError(f"hidden must be a sequence of widths, such as (128, 64), got {hidden!r}")
        if not hidden:
            raise ValueError(
                "hidden must name at least one layer, got an empty sequence: without any it is zoo.networks.Linear"
            )
        self.in_features = in_features
        self.norm = norm
        # Each layer has a place for each part, so that weights keep their names whatever the other arguments.
        layers: list[nn.Module] = []
        width = in_features
        for following in hidden:
            check_positive(hidden=following)
            # A bias before batch norm is taken away again by it.
            layers.append(nn.Linear(width, following, bias=norm != "batch"))
            layers.append(nn.Identity() if norm is None else MLP_NORMS[norm](following))
            layers.append(make_activation(activation))
            layers.append(Dropout(dropout) if dropout > 0.0 else nn.Identity())
            width = following
        self.input_dropout = Dropout(input_dropout) if input_dropout > 0.0 else nn.Identity()
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(width, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = check_features(inputs, self.in_features)
        if self.norm == "batch" and self.hidden[1].training and len(inputs) == 1:  # the size last: it would be traced
            raise ShapeError("batch norm cannot be trained with a single sample: use larger batches, or norm='layer'")
        outputs: Tensor = self.head(self.hidden(self.input_dropout(inputs)))
        return outputs
