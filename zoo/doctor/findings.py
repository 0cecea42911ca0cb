"""What a diagnosis comes to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Args:
        name: of the kind of finding, such as ``"vanishing_gradients"``; no two of a run have the same.
        evidence: what was measured, with its numbers.
        remedy: what to do about it.
    """

    name: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.evidence}: {self.remedy}"
