"""From the probabilities of every step to the labels they spell: decoding for networks trained with CTC.

A path names a label, or the blank 0, for each step. What it spells is left when repeats are merged and then the blanks
taken out (Graves et al., "Connectionist temporal classification", ICML 2006). Many paths spell the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.networks.checks import ShapeError, check_lengths, check_positive

BLANK = 0

_ROUNDING = 1e-3  # of normalising in half precision


class Decoding(NamedTuple):
    """What the steps of a sample spell."""

    labels: tuple[int, ...]
    """Without blanks."""
    log_probability: float
    """Of the one path (greedy), or of all paths found that spell these labels (prefix beam search)."""


def greedy_decode(log_probs: Tensor, steps: Tensor | None = None) -> list[Decoding]:
    """What the most probable path spells: the most probable label of each step by itself.

    Args:
        log_probs: ``(batch, steps, labels)`` float, normalised logarithms; label 0 is the blank.
        steps: ``(batch,)`` int64 on the CPU, the valid steps of each sample; ``None`` if all are.

    Raises:
        ShapeError: another shape, or steps that do not fit.
        ValueError: NaN among the log-probabilities, or logits.
    """
    counts = _check(log_probs, steps)
    values, path = log_probs.detach().max(dim=2)
    changes = torch.ones_like(path, dtype=torch.bool)
    changes[:, 1:] = path[:, 1:] != path[:, :-1]
    spelt = (changes & (path != BLANK)).cpu()
    path, values = path.cpu(), values.double().cpu()
    return [
        Decoding(tuple(path[index, :count][spelt[index, :count]].tolist()), float(values[index, :count].sum()))
        for index, count in enumerate(counts)
    ]


def prefix_beam_search(log_probs: Tensor, steps: Tensor | None = None, beam_width: int = 10) -> list[Decoding]:
    """The most probable labels found when the ``beam_width`` best prefixes are kept at every step.

    Unlike :func:`greedy_decode` it adds up the paths that spell the same (Hannun et al., "First-pass large vocabulary
    continuous speech recognition using bi-directional recurrent DNNs", 2014, without a language model). With a beam
    that holds all prefixes the result is the most probable labelling.

    Args:
        log_probs: ``(batch, steps, labels)`` float, normalised logarithms; label 0 is the blank.
        steps: ``(batch,)`` int64 on the CPU, the valid steps of each sample; ``None`` if all are.
        beam_width: prefixes kept.

    Raises:
        ShapeError: another shape, or steps that do not fit.
        ValueError: NaN among the log-probabilities, or logits, or a beam width below 1.
    """
    check_positive(beam_width=beam_width)
    counts = _check(log_probs, steps)
    probabilities = log_probs.detach().double().exp().cpu()
    return [_search(probabilities[index, :count].tolist(), beam_width) for index, count in enumerate(counts)]


def _search(rows: list[list[float]], beam_width: int) -> Decoding:
    # Of each prefix the probability of the paths that end in a blank, and of those that end in its last label; both
    # as shares of the best prefix's, whose logarithm is kept apart, because products of many steps leave 64 bits.
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}
    scale = 0.0
    for row in rows:
        following: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (blank, label) in beams.items():
            repeated = label * row[prefix[-1]] if prefix else 0.0
            if prefix and prefix[:-1] in beams:  # the prefix before it grows into it
                repeated += _grown(prefix[:-1], prefix[-1], beams[prefix[:-1]], row)
            following[prefix] = ((blank + label) * row[BLANK], repeated)
        # A prefix that is new has but one parent, so what it gets from it is all it has: below the last place of those
        # already there it need not be looked at.
        standing = sorted(map(sum, following.values()), reverse=True)
        floor = standing[beam_width - 1] if len(standing) >= beam_width else 0.0
        ranked = sorted(range(1, len(row)), key=row.__getitem__, reverse=True)
        for prefix, ends in beams.items():
            total = sum(ends)
            for label in ranked:
                if total * row[label] <= floor:
                    break
                new = (*prefix, label)
                if new not in beams and (share := _grown(prefix, label, ends, row)) > floor:
                    following[new] = (0.0, share)
        best = sorted(following.items(), key=lambda item: -sum(item[1]))[:beam_width]
        most = sum(best[0][1])
        if most <= 0.0:
            raise ValueError("a step leaves every path found without a probability above zero")
        scale += math.log(most)
        beams = {prefix: (blank / most, label / most) for prefix, (blank, label) in best}
    labels, ends = next(iter(beams.items()))
    return Decoding(labels, scale + math.log(sum(ends)))


def _grown(prefix: tuple[int, ...], label: int, ends: tuple[float, float], row: list[float]) -> float:
    """The probability that goes from a prefix to the one longer by ``label``."""
    blank, other = ends
    # The same label again is a new one only behind a blank.
    return row[label] * (blank if prefix and prefix[-1] == label else blank + other)


def _check(log_probs: Tensor, steps: Tensor | None) -> list[int]:
    if log_probs.ndim != 3 or log_probs.shape[2] < 2 or not log_probs.is_floating_point():
        raise ShapeError(
            "expected log-probabilities of shape (batch, steps, labels), floating-point, the blank and at least one "
            f"label, got {tuple(log_probs.shape)} of {str(log_probs.dtype).removeprefix('torch.')}"
        )
    batch, padded = log_probs.shape[:2]
    counts, looked_at = [padded] * batch, log_probs
    if steps is not None and batch:
        check_lengths(steps, batch, padded)
        counts = steps.tolist()
        padding = torch.arange(padded, device=log_probs.device) >= steps.to(log_probs.device)[:, None]
        looked_at = log_probs.masked_fill(padding[:, :, None], 0.0)  # whatever stands there
    if looked_at.isnan().any():
        raise ValueError("there are NaN among the log-probabilities")
    if (looked_at > _ROUNDING).any():
        raise ValueError("log-probabilities are at most 0: apply log_softmax(dim=2) to logits first")
    return counts
