"""Networks that are linear in their weights: a weighted sum, and a weighted sum of powers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.networks.checks import check_features, check_positive


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
        domain: lowest and highest input, the same for every feature. ``None`` takes for each feature what training
            shows: the domain widens until it holds every input seen, in the first epoch, and is kept in the state dict.

    Raises:
        ValueError: a size below 1, or a domain that is none.
        ShapeError: from ``forward``, for inputs of another width.

    Shape:
        ``(batch, ...)`` float with ``in_features`` numbers a sample → ``(batch, out_features)``.

    Example:
        >>> Polynomial(degree=5, domain=(-3.0, 3.0))(torch.zeros(2, 1)).shape
        torch.Size([2, 1])
    """

    low: Tensor
    high: Tensor

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
        self._widens = domain is None
        low, high = (math.inf, -math.inf) if domain is None else _interval(domain)  # an empty domain widens
        self.register_buffer("low", torch.full((in_features,), float(low)))
        self.register_buffer("high", torch.full((in_features,), float(high)))
        self.linear = nn.Linear(in_features * degree, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.features(inputs))
        return outputs

    def features(self, inputs: Tensor) -> Tensor:
        """What the linear layer sees: ``(batch, in_features * degree)``, degree by degree for each input."""
        inputs = check_features(inputs, self.in_features)
        if self.training and self._widens and len(inputs):
            self._widen(inputs.detach())
        middle, half = self._ends()
        scaled = (inputs.to(middle.dtype) - middle) / half
        # Bonnet's recursion: (k + 1) P_{k+1} = (2 k + 1) x P_k - k P_{k-1}
        polynomials = [torch.ones_like(scaled), scaled]
        for k in range(1, self.degree):
            following = ((2 * k + 1) * scaled * polynomials[k] - k * polynomials[k - 1]) / (k + 1)
            polynomials.append(following)
        # P_k has variance 1 / (2 k + 1) on [-1, 1].
        columns = [math.sqrt(2 * k + 1) * polynomials[k] for k in range(1, self.degree + 1)]
        return torch.stack(columns, dim=2).flatten(1)

    @torch.no_grad()
    def _widen(self, inputs: Tensor) -> None:
        values = inputs.to(self.low.dtype)
        finite = values.isfinite()  # others end the run by its loss, and shall not spoil the domain for the next
        low = values.masked_fill(~finite, math.inf).amin(dim=0)
        high = values.masked_fill(~finite, -math.inf).amax(dim=0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(low, torch.distributed.ReduceOp.MIN)
            torch.distributed.all_reduce(high, torch.distributed.ReduceOp.MAX)
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))

    def _ends(self) -> tuple[Tensor, Tensor]:
        """Middle and half width of each feature's domain; [-1, 1] as long as nothing was seen."""
        seen = self.low <= self.high
        low, high = torch.where(seen, self.low, -1.0), torch.where(seen, self.high, 1.0)
        middle, half = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
        # Of a single value: anything less than its own size might be lost in rounding.
        alone = middle.abs().clamp(min=1.0)
        return middle, torch.where(high > low, half, alone)

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """The same functions as sums of plain powers, in 64 bits.

        Returns:
            ``(out_features,)``, the constants, and ``(out_features, in_features, degree)``, the coefficients of
            ``x, x², …, x^degree``.
        """
        weight = self.linear.weight.detach().double().cpu().reshape(-1, self.in_features, self.degree)
        middle, half = (ends.double().tolist() for ends in self._ends())
        constants = self.linear.bias.detach().double().cpu().clone()
        powers = torch.zeros(len(weight), self.in_features, self.degree + 1, dtype=torch.float64)
        for feature in range(self.in_features):
            # scaled = slope * x + shift; the recursion again, on coefficients instead of values
            slope, shift = 1.0 / half[feature], -middle[feature] / half[feature]
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
