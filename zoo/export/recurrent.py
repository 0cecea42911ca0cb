"""Recurrent networks as an exporter can take them: for any number of steps, and for sequences of different lengths.

Packed sequences have no place in a graph, and ``torch.export`` unrolls torch's own cells, which fixes the number of
steps. Here they are run layer by layer with the same weights: by a loop of the graph's own (:class:`ScannedRecurrent`),
or by the operators that ONNX has for them (:class:`OnnxRecurrent`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.networks import CRNN, Recurrent

_CELLS = {nn.RNN: "RNN", nn.LSTM: "LSTM", nn.GRU: "GRU"}
_ONNX_GATES = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}  # torch's, in the order of ONNX
_ONNX_VERSION = 18

State = tuple[Tensor, ...]
"""The hidden state ``(batch, hidden)``, and of a long short-term memory its cell's."""


class TraceableRecurrent(nn.Module):
    """A :class:`zoo.networks.Recurrent` in evaluation mode, without checks of its inputs.

    Args:
        network: whose weights are used.

    Shape:
        ``(batch, steps, in_features)`` float and, unless all are whole, lengths ``(batch,)`` int64 from 1 to ``steps``
        → ``(batch, out_features)``, or ``(batch, steps, out_features)`` with zeros in the padding.
    """

    def __init__(self, network: Recurrent) -> None:
        super().__init__()
        self.cells = network.cells
        self.head = network.head
        self.read = network.read
        self.kind = _CELLS[type(network.cells)]

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        states = inputs.transpose(0, 1)
        for layer in range(self.cells.num_layers):
            states, final = self.run_layer(layer, states, lengths)
        if self.read == "last":
            outputs: Tensor = self.head(final)
            return outputs
        outputs = self.head(states.transpose(0, 1))
        if lengths is not None:
            padding = torch.arange(outputs.shape[1])[:, None] >= lengths[:, None, None]
            outputs = outputs.masked_fill(padding, 0.0)
        return outputs

    @abstractmethod
    def run_layer(self, layer: int, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """The states of all steps, ``(steps, batch, directions * hidden)``, and those after each last valid one."""

    def directions(self, layer: int) -> Iterator[tuple[bool, list[Tensor]]]:
        """Of a layer, for each direction: whether it is backwards, and its weights and biases."""
        for suffix in ("", "_reverse")[: 2 if self.cells.bidirectional else 1]:
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            yield bool(suffix), [getattr(self.cells, f"{name}_l{layer}{suffix}") for name in names]


class ScannedRecurrent(TraceableRecurrent):
    """By a loop over the steps; in the padding the state stays as it is, backwards at its zeros."""

    def run_layer(self, layer: int, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        # Documented as a prototype, and the one loop that a graph can hold whose number of steps is free.
        from torch._higher_order_ops.scan import scan

        states, finals = [], []
        valid = None if lengths is None else (torch.arange(inputs.shape[0])[:, None] < lengths)[:, :, None]
        for backwards, (weight_ih, weight_hh, bias_ih, bias_hh) in self.directions(layer):
            zeros = inputs.new_zeros(inputs.shape[1], self.cells.hidden_size)
            start = (zeros, zeros.clone()) if self.kind == "LSTM" else (zeros,)
            step = _step(_UPDATES[self.kind], weight_hh, bias_hh)
            steps = (functional.linear(inputs, weight_ih, bias_ih),)
            final, outputs = scan(step, start, steps if valid is None else (*steps, valid), dim=0, reverse=backwards)
            states.append(outputs)
            finals.append(final[0])
        return torch.cat(states, dim=2), torch.cat(finals, dim=1)


def _step(
    update: Callable[[Tensor, Tensor, State], State], weight: Tensor, bias: Tensor
) -> Callable[[State, State], tuple[State, Tensor]]:
    def step(state: State, inputs: State) -> tuple[State, Tensor]:
        following = update(inputs[0], functional.linear(state[0], weight, bias), state)
        if len(inputs) > 1:
            following = tuple(torch.where(inputs[1], new, old) for new, old in zip(following, state, strict=True))
        return following, following[0].clone()  # an output may not share the state's memory

    return step


def _update_rnn(from_inputs: Tensor, from_state: Tensor, state: State) -> State:
    return ((from_inputs + from_state).tanh(),)


def _update_lstm(from_inputs: Tensor, from_state: Tensor, state: State) -> State:
    enter, forget, candidate, leave = (from_inputs + from_state).chunk(4, dim=1)
    cell = forget.sigmoid() * state[1] + enter.sigmoid() * candidate.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def _update_gru(from_inputs: Tensor, from_state: Tensor, state: State) -> State:
    reset, keep, candidate = from_inputs.chunk(3, dim=1)
    reset_state, keep_state, candidate_state = from_state.chunk(3, dim=1)
    kept = (keep + keep_state).sigmoid()
    new = (candidate + (reset + reset_state).sigmoid() * candidate_state).tanh()
    return ((1.0 - kept) * new + kept * state[0],)


_UPDATES = {"RNN": _update_rnn, "LSTM": _update_lstm, "GRU": _update_gru}


class OnnxRecurrent(TraceableRecurrent):
    """By the operators ``RNN``, ``LSTM`` and ``GRU`` of ONNX, which take lengths; for a graph that becomes ONNX."""

    def __init__(self, network: Recurrent) -> None:
        super().__init__(network)
        with torch.no_grad():
            for layer in range(self.cells.num_layers):
                parts = [list(map(self._reordered, weights)) for _, weights in self.directions(layer)]
                weight_ih, weight_hh, bias_ih, bias_hh = (torch.stack(part) for part in zip(*parts, strict=True))
                biases = torch.cat([bias_ih, bias_hh], dim=1)
                for name, value in (("weight_ih", weight_ih), ("weight_hh", weight_hh), ("bias", biases)):
                    self.register_buffer(f"{name}_{layer}", value)

    def _reordered(self, weight: Tensor) -> Tensor:
        gates = _ONNX_GATES[self.kind]
        parts = weight.chunk(len(gates))
        return torch.cat([parts[gate] for gate in gates])

    def run_layer(self, layer: int, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        from torch.onnx import ops

        steps, batch = inputs.shape[:2]
        directions, hidden = 2 if self.cells.bidirectional else 1, self.cells.hidden_size
        attributes: dict[str, Any] = {
            "hidden_size": hidden,
            "direction": "bidirectional" if directions > 1 else "forward",
        }
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1  # as torch has it
        weights = [getattr(self, f"{name}_{layer}") for name in ("weight_ih", "weight_hh", "bias")]
        given = [] if lengths is None else [lengths.to(torch.int32)]
        state = (directions, batch, hidden)
        shapes = [(steps, *state), *[state] * (2 if self.kind == "LSTM" else 1)]
        states, final, *_ = ops.symbolic_multi_out(
            self.kind,
            [inputs, *weights, *given],
            attrs=attributes,
            dtypes=[torch.float32] * len(shapes),
            shapes=shapes,
            version=_ONNX_VERSION,
        )
        return states.transpose(1, 2).flatten(2), final.transpose(0, 1).flatten(1)


class TraceableCRNN(nn.Module):
    """A :class:`zoo.networks.CRNN` around a recurrent layer that can be traced, without checks of its inputs.

    Args:
        network: of which all but the recurrent layer is used.
        recurrent: in its place.
    """

    def __init__(self, network: CRNN, recurrent: TraceableRecurrent) -> None:
        super().__init__()
        self.convolutions = network
        self.recurrent = recurrent
        del network.recurrent

    def forward(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        outputs: Tensor = self.recurrent(*self.convolutions.columns(images, widths))
        return outputs


def traceable(network: nn.Module, kind: type[TraceableRecurrent]) -> nn.Module:
    """A network whose recurrent parts, if it has any, can be traced.

    Args:
        network: changed in place.
        kind: what takes the place of each :class:`zoo.networks.Recurrent`.
    """
    if type(network).forward is Recurrent.forward:
        assert isinstance(network, Recurrent)
        return kind(network)
    for name, child in network.named_children():
        setattr(network, name, traceable(child, kind))
    if type(network).forward is CRNN.forward:
        assert isinstance(network, CRNN)
        assert isinstance(network.recurrent, TraceableRecurrent)
        return TraceableCRNN(network, network.recurrent)
    return network
