"""Sequences of labels from longer sequences of steps."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.text import CharErrorRate

from zoo.decoding import BLANK, Decoding, greedy_decode, prefix_beam_search
from zoo.networks.checks import ShapeError, check_choice, check_lengths, check_positive
from zoo.tasks.base import Batch, TargetError, Task, at_least_32_bits, inputs_of

DECODERS = ("greedy", "beam")


class Transcription(NamedTuple):
    """What a transcriber reads in a batch."""

    texts: list[str]
    """``batch`` strings over the alphabet."""
    log_probabilities: Tensor
    """``(batch,)`` float32, see :class:`zoo.decoding.Decoding`."""


class LabelSequences(NamedTuple):
    """The targets of a batch, and the steps that there are for them; all on the CPU."""

    labels: Tensor
    """``(batch, longest)`` int64."""
    lengths: Tensor
    """``(batch,)`` int64, the valid labels of each sample."""
    steps: Tensor
    """``(batch,)`` int64, the valid steps of the network's outputs."""


class CTCOnCPUWarning(UserWarning):
    """The network is on an accelerator, its loss on the CPU."""


class SequenceTranscription(Task):
    """Labels in their order, from inputs of which nobody says where each label is.

    Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data with recurrent neural
    networks", ICML 2006. The loss is the mean over samples of the negative log-probability of all paths that spell the
    target, over the target's length. Beside it ``{val,test}/cer``, the character error rate: insertions, deletions and
    substitutions over all samples, as a share of their characters; and ``sequence_accuracy``, the share of samples
    without an error.

    Targets are a pair, ``(labels, lengths)``: ``(batch, longest)`` int64, padded with anything, and ``(batch,)`` int64,
    both on the CPU, where :class:`datamodules.LabelBatch` keeps them. Label ``i`` is the ``i``-th character of the
    alphabet, counted from 1; 0 is the blank, which stands between labels and is in no target.

    The loss is computed on the CPU, too, under ``Trainer(deterministic=True)``, as its gradient on a GPU is not
    deterministic; a run that pays for this says so.

    Args:
        network: maps inputs, and their lengths if these differ, to logits ``(batch, steps, 1 + len(alphabet))``; any
            module. One whose steps are fewer than its inputs' says how many are valid: ``num_steps(lengths)``.
        alphabet: the characters that are read, each once.
        decoder: how metrics and predictions read the outputs: ``"greedy"`` or ``"beam"``, see :mod:`zoo.decoding`.
        beam_width: prefixes kept by ``"beam"``.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`.

    Raises:
        ValueError: an alphabet that is empty or names a character twice, an unknown decoder, a beam width below 1.
        TargetError: in a step, targets of another shape, type or device, of length zero, beyond their padding, outside
            the alphabet (a blank, for one), or longer than the steps allow: each label needs one, and one more for a
            blank where it is the same as the one before.

    Example:
        >>> task = SequenceTranscription(network=nn.Linear(8, 4), alphabet="abc")
        >>> task(torch.zeros(2, 6, 8)).shape
        torch.Size([2, 6, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        alphabet: str,
        decoder: str = "greedy",
        beam_width: int = 10,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        check_alphabet(alphabet)
        check_choice("decoder", decoder, DECODERS)
        check_positive(beam_width=beam_width)
        super().__init__(
            network=network,
            metrics={"cer": CharErrorRate(), "sequence_accuracy": SequenceAccuracy()},
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.alphabet = alphabet
        self.decoder = decoder
        self.beam_width = beam_width

    def setup(self, stage: str) -> None:
        theirs = getattr(self.trainer.datamodule, "alphabet", None)  # type: ignore[attr-defined]
        if theirs is not None and "".join(theirs) != self.alphabet:
            raise TargetError(f"the data are written in the alphabet {theirs!r}, the model reads {self.alphabet!r}")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.device.type != "cpu" and loss_device(self.device).type == "cpu":
            reason = (
                "where its gradient is not deterministic" if self.device.type == "cuda" else "which does not have it"
            )
            warnings.warn(
                f"the CTC loss is computed on the CPU, not on {self.device}, {reason}",
                CTCOnCPUWarning,
                stacklevel=2,
            )

    def _shared_step(self, batch: Batch) -> tuple[Tensor, LabelSequences, Tensor]:
        outputs = self.outputs_of(batch)
        targets = batch[1]
        parts = list(targets) if isinstance(targets, Iterable) and not isinstance(targets, Tensor) else []
        if len(parts) != 2:
            raise TargetError(f"targets must be a pair of labels and their lengths, got {type(targets).__name__}")
        labels, lengths = parts
        sequences = LabelSequences(labels, lengths, self.steps_of(batch, outputs))
        self.check_targets(outputs, sequences)
        return outputs, sequences, self.compute_loss(outputs, sequences)

    def steps_of(self, batch: Batch | Tensor, outputs: Tensor) -> Tensor:
        """The valid steps of the outputs for a batch, ``(batch,)`` int64 on the CPU.

        Raises:
            ShapeError: there are more of them than the network gives, none for a sample, or they are no lengths.
        """
        inputs = inputs_of(batch)
        if outputs.ndim != 3 or outputs.shape[2] != 1 + len(self.alphabet):
            raise TargetError(
                f"the network must give logits of shape (batch, steps, {1 + len(self.alphabet)}), one for the blank "
                f"and for each character of {self.alphabet!r}, got {tuple(outputs.shape)}"
            )
        if isinstance(inputs, Tensor):
            return torch.full((len(outputs),), outputs.shape[1], dtype=torch.int64)
        num_steps = getattr(self.network, "num_steps", None)
        _, lengths = inputs
        steps: Tensor = lengths if num_steps is None else num_steps(lengths)
        if steps.device.type == "cpu" and steps.numel() and int(steps.max()) > outputs.shape[1]:
            raise ShapeError(
                f"the network gives {outputs.shape[1]} steps where {int(steps.max())} were expected: one that shortens "
                "its inputs says how many steps are valid with a method num_steps(lengths)"
            )
        if len(outputs):  # a network need not have looked at its lengths
            check_lengths(steps, len(outputs), outputs.shape[1])
        return steps

    def compute_loss(self, outputs: Tensor, targets: LabelSequences) -> Tensor:
        device = loss_device(outputs.device)
        padding = torch.arange(outputs.shape[1]) >= targets.steps[:, None]
        # The loss looks at no padding, but its gradient would hand on a NaN that stands there.
        valid = outputs.to(device).masked_fill(padding[:, :, None].to(device, non_blocking=True), 0.0)
        log_probs = valid.log_softmax(dim=2).transpose(0, 1)
        labels = targets.labels.to(device, non_blocking=True)
        loss = functional.ctc_loss(log_probs, labels, targets.steps, targets.lengths, blank=BLANK)
        return loss.to(outputs.device)

    def check_targets(self, outputs: Tensor, targets: LabelSequences) -> None:
        _check_form(targets, len(outputs))
        labels, lengths, steps = targets
        longest = labels.shape[1]
        _refuse(lengths < 1, "has length {}: a target has at least one label", lengths)
        _refuse(lengths > longest, f"has length {{}}, but the targets are padded to {longest} labels", lengths)
        valid = torch.arange(longest) < lengths[:, None]
        counted = f"the {len(self.alphabet)} characters of the alphabet count from 1"
        blank = (labels == BLANK) & valid
        _refuse(blank.any(dim=1), f"holds the label {BLANK}, which is the blank: {counted}")
        for outside in ((labels < 0) & valid, (labels > len(self.alphabet)) & valid):
            label = labels.gather(1, outside.long().argmax(dim=1, keepdim=True))
            _refuse(outside.any(dim=1), f"holds the label {{}}: {counted}", label)
        repeats = ((labels[:, 1:] == labels[:, :-1]) & valid[:, 1:]).sum(dim=1)
        needed = lengths + repeats  # a blank goes between two that are the same
        _refuse(
            needed > steps,
            "needs {} steps, {} labels and {} between labels that repeat, but has {}: give it a longer input, or a "
            "network that shortens it less",
            *(needed, lengths, repeats, steps),
        )

    def metric_inputs(self, outputs: Tensor, targets: LabelSequences) -> tuple[list[str], list[str]]:
        # Steps that are no numbers are read as blanks: that the model is broken is for the loss to say, not for these.
        log_probs = outputs.log_softmax(dim=2)
        blank = outputs.new_full(outputs.shape[2:], -math.inf)
        blank[BLANK] = 0.0
        log_probs = torch.where(log_probs.isnan().any(dim=2, keepdim=True), blank, log_probs)
        read = [self.text(decoding.labels) for decoding in self._decode(log_probs, targets.steps)]
        pairs = zip(targets.labels.tolist(), targets.lengths.tolist(), strict=True)
        return read, [self.text(labels[:length]) for labels, length in pairs]

    def decode(self, outputs: Tensor, steps: Tensor | None = None) -> list[Decoding]:
        """What the logits ``(batch, steps, 1 + len(alphabet))`` spell, by the task's decoder."""
        return self._decode(at_least_32_bits(outputs).log_softmax(dim=2), steps)

    def _decode(self, log_probs: Tensor, steps: Tensor | None) -> list[Decoding]:
        if self.decoder == "beam":
            return prefix_beam_search(log_probs, steps, self.beam_width)
        return greedy_decode(log_probs, steps)

    def text(self, labels: Sequence[int]) -> str:
        """Labels, counted from 1, as a string over the alphabet."""
        return "".join(self.alphabet[label - 1] for label in labels)

    def labels(self, text: str) -> list[int]:
        """A string over the alphabet as labels, counted from 1.

        Raises:
            TargetError: it has another character.
        """
        foreign = sorted(set(text) - set(self.alphabet))
        if foreign:
            raise TargetError(f"{text!r} has {foreign[0]!r}, which is not in the alphabet {self.alphabet!r}")
        return [1 + self.alphabet.index(character) for character in text]

    def predict_step(self, batch: Batch | Tensor, batch_idx: int = 0) -> Transcription:
        outputs = self.outputs_of(batch)
        decodings = self.decode(outputs, self.steps_of(batch, outputs))
        scores = [decoding.log_probability for decoding in decodings]
        texts = [self.text(decoding.labels) for decoding in decodings]
        return Transcription(texts, torch.tensor(scores, dtype=torch.float32))  # at any precision


class SequenceAccuracy(Metric):
    """The share of predicted strings that are the expected ones."""

    full_state_update = False
    higher_is_better = True
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Sequence[str], target: Sequence[str]) -> None:
        """Count a batch."""
        self.right += sum(map(operator.eq, preds, target))
        self.total += len(target)

    def compute(self) -> Tensor:
        """The share, NaN of nothing."""
        return self.right / self.total


def check_alphabet(alphabet: str) -> None:
    """Raise a ``ValueError`` unless ``alphabet`` is a string of characters, each once."""
    if not isinstance(alphabet, str) or not alphabet:
        raise ValueError(f"alphabet must be a string of at least one character, got {alphabet!r}")
    twice = next((character for character in alphabet if alphabet.count(character) > 1), None)
    if twice is not None:
        raise ValueError(f"alphabet must name each character once, got {twice!r} twice in {alphabet!r}")


def loss_device(device: torch.device) -> torch.device:
    """Where the CTC loss of outputs on ``device`` is computed.

    On a GPU its gradient is not deterministic (documentation of ``torch.use_deterministic_algorithms``), and other
    accelerators do not have it.
    """
    keep = device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()
    return device if keep else torch.device("cpu")


def _check_form(targets: LabelSequences, batch: int) -> None:
    for name, values, shape, ndim in (
        ("labels", targets.labels, f"({batch}, longest)", 2),
        ("lengths", targets.lengths, f"({batch},)", 1),
    ):
        if not isinstance(values, Tensor):
            raise TargetError(f"the {name} of the targets must be a tensor, got {type(values).__name__}")
        if values.dtype != torch.int64 or values.ndim != ndim or len(values) != batch:
            raise TargetError(
                f"the {name} of the targets must be of shape {shape} and type int64, got {tuple(values.shape)} and "
                f"{str(values.dtype).removeprefix('torch.')}"
            )
        if values.device.type != "cpu":
            raise TargetError(
                f"the {name} of the targets must stay on the CPU, got them on {values.device}: a "
                "datamodules.LabelBatch, made of Padded samples with labels=True, keeps them there"
            )


def _refuse(wrong: Tensor, words: str, *values: Tensor) -> None:
    """Raise :class:`TargetError` about the first sample that is wrong, with its values filled in."""
    if wrong.any():
        index = int(wrong.nonzero()[0])
        filled = words.format(*(int(value[index]) for value in values))
        raise TargetError(f"the target of sample {index} of the batch {filled}")
