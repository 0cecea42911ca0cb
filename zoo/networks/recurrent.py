"""Recurrent networks over padded batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.networks.checks import ShapeError, check_choice, check_fraction, check_lengths, check_positive
from zoo.networks.dropout import Dropout

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
READS = ("last", "every")


class Recurrent(nn.Module):
    """A recurrent network with a linear head on its last valid step, or on every step.

    The cells are Elman's (Cognitive Science 14, 1990), the long short-term memory (Hochreiter and Schmidhuber, Neural
    Computation 9, 1997; with forget gates, Gers et al. 2000), and the gated recurrent unit (Cho et al. 2014).
    Shorter sequences of a padded batch are packed: what stands in their padding never changes a result. (On a GPU
    packing waits for the device.)

    Args:
        in_features: numbers a step.
        hidden: width of the state of each layer, in each direction.
        out_features: outputs a sequence, or a step.
        cell: ``"rnn"`` (tanh), ``"lstm"`` or ``"gru"``.
        num_layers: layers, each reading the states of the one before.
        bidirectional: read the sequence backwards as well; the head sees both states.
        dropout: probability of dropping a state between two layers, and before the head, in [0, 1).
        read: ``"last"``, the last valid step (backwards, the first), or ``"every"`` step.

    Raises:
        ValueError: a name or value out of range.
        ShapeError: from ``forward``, for inputs of another shape, or lengths that do not fit them.

    Shape:
        ``(batch, steps, in_features)`` float and, unless all are whole, lengths ``(batch,)`` int64 on the CPU →
        ``(batch, out_features)``, or ``(batch, steps, out_features)`` with zeros in the padding.

    Example:
        >>> network = Recurrent(28, 64, 10, cell="lstm")
        >>> network(torch.zeros(2, 28, 28), torch.tensor([28, 5])).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        read: str = "last",
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, hidden=hidden, out_features=out_features, num_layers=num_layers)
        check_choice("cell", cell, CELLS)
        check_choice("read", read, READS)
        check_fraction(dropout=dropout)
        self.read = read
        self.cells = CELLS[cell](
            in_features,
            hidden,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns of a dropout that has nowhere to be
        )
        self.dropout = Dropout(dropout) if dropout > 0.0 else nn.Identity()
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), out_features)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        check_sequences(inputs, lengths, self.cells.input_size)
        steps = inputs.shape[1]
        if lengths is None:
            states, final = self.cells(inputs)
        else:
            packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
            states, final = self.cells(packed)
        if self.read == "last":
            # Of the last layer, forwards and backwards; a packed sequence's end is its own.
            final = final[0] if isinstance(final, tuple) else final
            directions = 2 if self.cells.bidirectional else 1
            read = torch.cat(list(final[-directions:]), dim=1)
            outputs: Tensor = self.head(self.dropout(read))
            return outputs
        if lengths is not None:
            states, _ = pad_packed_sequence(states, batch_first=True, total_length=steps)
        outputs = self.head(self.dropout(states))
        if lengths is not None:
            ends = lengths.to(outputs.device, non_blocking=True)[:, None, None]
            outputs = outputs.masked_fill(torch.arange(steps, device=outputs.device)[:, None] >= ends, 0.0)
        return outputs


def check_sequences(inputs: Tensor, lengths: Tensor | None, in_features: int) -> None:
    """Raise :class:`ShapeError` unless ``inputs`` are padded sequences and ``lengths`` theirs.

    Lengths are looked at on the CPU, where a loader keeps them: from a GPU every batch would wait for them.
    """
    expected = f"(batch, steps, {in_features})"
    if inputs.ndim != 3 or inputs.shape[2] != in_features:
        advice = ": of images with one channel rows are made with images.squeeze(1)" if inputs.ndim == 4 else ""
        raise ShapeError(f"expected sequences of shape {expected}, got {tuple(inputs.shape)}{advice}")
    if not inputs.is_floating_point():
        raise ShapeError(f"expected floating-point sequences, got {inputs.dtype}: convert and scale them first")
    batch, steps = inputs.shape[:2]
    if batch == 0 or steps == 0:
        raise ShapeError(f"there is nothing to read in sequences of shape {tuple(inputs.shape)}")
    if lengths is not None:
        check_lengths(lengths, batch, steps)
