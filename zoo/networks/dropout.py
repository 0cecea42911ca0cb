"""Dropout that costs a processor little."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHARES = 1 << 16  # a decision takes 16 bits
_DECISIONS = 4  # of each number of 64 bits that is drawn


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``, whose draws on a CPU take a fifth of the time.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014. torch draws a number of 64 bits for every value, in one thread, which is a third of a
    step of three layers of 1,024; here four values share one. A value is dropped with the probability ``p`` rounded to
    a multiple of 2^-16, and what is kept is scaled by just that probability: the mean stays what it was.

    The draws come from torch's generator, as those of ``nn.Dropout`` do, but are others. On other devices, in place,
    for a ``p`` within 2^-17 of 0 or 1, for nested tensors and subclasses of ``Tensor``, and where a program is taken
    down or transformed (``torch.compile``, ``torch.export``, ``torch.jit.trace``, ``torch.fx``, ``torch.func``) it is
    ``nn.Dropout``.

    Args:
        p: probability of a value to be dropped, in [0, 1].
        inplace: change the input itself.

    Raises:
        ValueError: ``p`` out of range.

    Shape:
        any → the same.

    Example:
        >>> dropped = Dropout(0.5)(torch.ones(100, 1000))
        >>> sorted(set(dropped.flatten().tolist()))
        [0.0, 2.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        if not 0.0 <= p <= 1.0:  # of NaN, too, which torch takes
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        super().__init__(p, inplace)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name of the base's argument
        if not self.training or self.p == 0.0:
            return input
        dropped = round(self.p * _SHARES)
        if self.inplace or not 0 < dropped < _SHARES or not _is_ordinary(input):
            return super().forward(input)
        # Not on torch's default device, which may be another than the input's.
        draws = input.new_empty(-(-input.numel() // _DECISIONS), dtype=torch.int64).random_(-(2**63), None)
        shares = draws.view(torch.int16)[: input.numel()].view(input.shape)  # from -2^15 on, each as likely
        kept = (shares >= dropped - _SHARES // 2).to(input.dtype)
        return input * kept.mul_(_SHARES / (_SHARES - dropped))


def _is_ordinary(values: Tensor) -> bool:
    """Whether this is a plain tensor on a CPU, and what is done to it is nothing but done."""
    return (
        type(values) is Tensor
        and values.device.type == "cpu"
        and not values.is_nested
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and torch._C._functorch.maybe_current_level() is None
    )
