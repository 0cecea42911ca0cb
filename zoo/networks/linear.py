"""Networks that are linear in their weights: a weighted sum, and a weighted sum of powers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.networks.checks import ShapeError, check_features, check_positive


class Linear(nn.Module):
    """A weighted sum of the inputs and a bias, for each output.

    Args:
        in_features: numbers a sample.
        out_features: outputs a sample.

    Raises:
        ValueError: a size below 1.
        ShapeError: from ``forward``, for inputs of another width.

    Shape:
        ``(batch, ...)`` float with ``in_features`` numbers a sample → ``(batch, out_features)``.

    Example:
        >>> Linear(3)(torch.zeros(2, 3)).shape
        torch.Size([2, 1])
    """

    def __init__(self, in_features: int = 1, out_features: int = 1) -> None:
        super().__init__()
        check_positive(in_features=in_features, out_features=out_features)
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(check_features(inputs, self.linear.in_features))
        return outputs


class Polynomial(nn.Module):
    """A polynomial of each input, summed over the inputs, and a bias.

    The functions are those of ``x, x², …, x^degree``, but the weights are those of Legendre polynomials, scaled to unit
    variance, on a domain mapped to [-1, 1]: for inputs spread evenly over the domain the features are uncorrelated
    whatever the degree and wherever the domain lies, and gradient descent does not crawl. :meth:`coefficients` gives
    the plain powers' coefficients.

    Args:
        degree: highest power.
        in_features: numbers a sample.
        out_features: outputs a sample.
        domain: lowest and highest input, the same for every feature. ``None`` takes the ends of each feature's range
            as the first batch that is seen in training lets them be guessed, and keeps them in the state dict; beyond
            the domain a high degree grows steeply, so pass it where that batch is small (below 64 for degree 10).

    Raises:
        ValueError: a size below 1, or a domain that is none; from ``forward``, a first batch that gives no domain.
        ShapeError: from ``forward``, for inputs of another width.

    Shape:
        ``(batch, ...)`` float with ``in_features`` numbers a sample → ``(batch, out_features)``.

    Example:
        >>> Polynomial(degree=5, domain=(-3.0, 3.0))(torch.zeros(2, 1)).shape
        torch.Size([2, 1])
    """

    low: Tensor
    high: Tensor
    is_placed: Tensor

    def __init__(
        self,
        degree: int = 5,
        in_features: int = 1,
        out_features: int = 1,
        domain: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        check_positive(degree=degree, in_features=in_features, out_features=out_features)
        self.degree = degree
        self.in_features = in_features
        low, high = (-1.0, 1.0) if domain is None else _interval(domain)
        self.register_buffer("low", torch.full((in_features,), low))
        self.register_buffer("high", torch.full((in_features,), high))
        self.register_buffer("is_placed", torch.tensor(domain is not None))
        self._placed = domain is not None
        self.linear = nn.Linear(in_features * degree, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.features(inputs))
        return outputs

    def features(self, inputs: Tensor) -> Tensor:
        """What the linear layer sees: ``(batch, in_features * degree)``, degree by degree for each input."""
        inputs = check_features(inputs, self.in_features)
        if self.training and not self._placed:
            self._place(inputs.detach())
        # The difference first: it is exact near the domain's end, however far from zero that is.
        scaled = 2.0 * ((inputs.to(self.low.dtype) - self.low) / (self.high - self.low)) - 1.0
        # Bonnet's recursion: (k + 1) P_{k+1} = (2 k + 1) x P_k - k P_{k-1}
        polynomials = [torch.ones_like(scaled), scaled]
        for k in range(1, self.degree):
            following = ((2 * k + 1) * scaled * polynomials[k] - k * polynomials[k - 1]) / (k + 1)
            polynomials.append(following)
        # P_k has variance 1 / (2 k + 1) on [-1, 1].
        columns = [math.sqrt(2 * k + 1) * polynomials[k] for k in range(1, self.degree + 1)]
        return torch.stack(columns, dim=2).flatten(1)

    @torch.no_grad()
    def _place(self, inputs: Tensor) -> None:
        if not len(inputs):
            raise ShapeError("the domain is that of the first batch in training, which is empty: pass domain")
        low, high = inputs.to(self.low.dtype).aminmax(dim=0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(low, torch.distributed.ReduceOp.MIN)
            torch.distributed.all_reduce(high, torch.distributed.ReduceOp.MAX)
        same = high <= low  # a single sample, or a constant feature
        # Evenly spread samples stop that much short of the ends, on average; and to a single value anything less than
        # its own size might be lost in rounding.
        margin = torch.where(same, low.abs().clamp(min=1.0), (high - low) / max(1, len(inputs) - 1))
        low, high = low - margin, high + margin
        if not bool((high - low).isfinite().all()):
            # Kept, such a domain would turn every later batch into NaN as well.
            raise ValueError(
                "the domain is that of the first batch in training, which holds NaN, infinite or too large values: "
                "mend the data, or pass domain"
            )
        self.low.copy_(low)
        self.high.copy_(high)
        self.is_placed.fill_(True)
        self._placed = True

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._placed = bool(self.is_placed)  # read once here, not from a GPU in every step

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """The same functions as sums of plain powers, in 64 bits.

        Returns:
            ``(out_features,)``, the constants, and ``(out_features, in_features, degree)``, the coefficients of
            ``x, x², …, x^degree``.
        """
        weight = self.linear.weight.detach().double().cpu().reshape(-1, self.in_features, self.degree)
        constants = self.linear.bias.detach().double().cpu().clone()
        powers = torch.zeros(len(weight), self.in_features, self.degree + 1, dtype=torch.float64)
        for feature in range(self.in_features):
            low, high = float(self.low[feature]), float(self.high[feature])
            # scaled = slope * x + shift; the recursion again, on coefficients instead of values
            slope, shift = 2.0 / (high - low), -(high + low) / (high - low)
            polynomials = [torch.zeros(self.degree + 1, dtype=torch.float64) for _ in range(2)]
            polynomials[0][0] = 1.0
            polynomials[1][0], polynomials[1][1] = shift, slope
            for k in range(1, self.degree):
                times_x = torch.roll(polynomials[k], 1)
                times_x[0] = 0.0
                times_scaled = slope * times_x + shift * polynomials[k]
                polynomials.append(((2 * k + 1) * times_scaled - k * polynomials[k - 1]) / (k + 1))
            for k in range(1, self.degree + 1):
                scaled = math.sqrt(2 * k + 1) * polynomials[k]
                powers[:, feature] += weight[:, feature, k - 1, None] * scaled
        return constants + powers[:, :, 0].sum(dim=1), powers[:, :, 1:]


def _interval(domain: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (math.nan, math.nan) if isinstance(domain, str) else (float(bound) for bound in domain)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"domain must be two finite numbers, the lower one first, or None, got {domain!r}")
    ends = torch.tensor([low, high])
    if not 0.0 < float(ends[1] - ends[0]) < math.inf:
        kind = str(ends.dtype).removeprefix("torch.")
        raise ValueError(f"domain is too narrow or too wide for {kind}, got {domain!r}: shift and scale the inputs")
    return low, high
