"""Several classifiers that vote."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.networks.checks import check_choice

VOTINGS = ("soft", "hard")


class Ensemble(nn.Module):
    """Networks for the same classes, and their vote; softmax of its logits gives probabilities, as of a member's.

    A soft vote is the mean of the members' probabilities (Lakshminarayanan et al., "Simple and scalable predictive
    uncertainty estimation using deep ensembles", 2017), a hard one the majority of their decisions, the mean deciding
    between classes of equally many.

    Args:
        members: networks that map the same inputs to logits ``(batch, num_classes)``, at least one.
        voting: ``"soft"`` or ``"hard"``.

    Raises:
        ValueError: no members, or an unknown way to vote.

    Shape:
        what the members take → logits ``(batch, num_classes)``, in 32 bits at least: the logarithms of the mean
        probabilities, or of the shares of the votes.

    Example:
        >>> even, sure = nn.Linear(1, 2), nn.Linear(1, 2)
        >>> with torch.no_grad():
        ...     _ = even.weight.zero_(), even.bias.zero_(), sure.weight.zero_()
        ...     _ = sure.bias.copy_(torch.tensor([0.8, 0.2]).log())
        ...     Ensemble([even, sure])(torch.zeros(1, 1)).softmax(dim=1)  # (0.5 + 0.8) / 2
        tensor([[0.6500, 0.3500]])
    """

    def __init__(self, members: Iterable[nn.Module], voting: str = "soft") -> None:
        super().__init__()
        check_choice("voting", voting, VOTINGS)
        self.members = nn.ModuleList(members)
        self.voting = voting
        if not len(self.members):
            raise ValueError("an ensemble needs at least one member, got none")

    def member_logits(self, *inputs: Tensor) -> Tensor:
        """The logits of each member, ``(batch, members, num_classes)``, in 32 bits at least."""
        logits = torch.stack([member(*inputs) for member in self.members], dim=1)
        return logits if logits.dtype == torch.float64 else logits.float()

    def forward(self, *inputs: Tensor) -> Tensor:
        logits = self.member_logits(*inputs)
        mean = logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(len(self.members))
        if self.voting == "soft":
            return mean
        votes = functional.one_hot(logits.argmax(dim=2), logits.shape[2]).sum(dim=1)
        # The mean, at most 1, counts half: it cannot outweigh a vote.
        return ((votes + 0.5 * mean.exp()) / (len(self.members) + 0.5)).log()
