"""What the graph of a loss, which autograd keeps for the backward pass, tells of the forward pass.

Nothing has to be hooked into a network for it, and it shows a function such as ``torch.relu`` as well as a module. What
is used are the tensors that its nodes have saved, see "Saved tensors" in torch's notes on autograd.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_MAX_NODES = 50_000
_MAX_WAY = 200  # nodes between an activation and the layer before it
_MAX_VALUES = 2**22  # of which a cross-entropy is taken: the rows of a vocabulary's logits fill a GPU once more
_MAX_CLASSES = 100  # that are counted

_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)


@dataclass
class Units:
    """The units behind a layer, as ReLU left them."""

    layer: str
    peaks: Tensor
    """``(units,)`` the largest value of each over the batch, on the device; what is not above 0 was silent."""
    limit: float
    """The largest value that the type of the activation can hold."""


@dataclass
class Classes:
    """What a cross-entropy was computed from."""

    num_classes: int
    cross_entropy: Tensor
    """Mean over the batch, a scalar on the device."""
    labels: Tensor | None = None
    """``(samples,)`` int64; ``None`` where a sample has several."""
    predictions: Tensor | None = None

    def count(self) -> tuple[list[int], list[int], float | None]:
        """Samples of each class, those taken for each, and the share that is right; waits for the device."""
        if self.labels is None or self.predictions is None or not len(self.labels):
            return [], [], None
        labels, predictions = torch.stack([self.labels, self.predictions]).cpu()
        accuracy = float((labels == predictions).double().mean())
        if self.num_classes > _MAX_CLASSES:
            return [], [], accuracy
        counts = (torch.bincount(classes, minlength=self.num_classes).tolist() for classes in (labels, predictions))
        return next(counts), next(counts), accuracy


@dataclass
class Graph:
    """What was found in the graph of a loss."""

    units: list[Units] = field(default_factory=list)
    classes: Classes | None = None
    is_compiled: bool = False
    """Whether a part of it is one node, made by ``torch.compile``, which shows nothing."""


@torch.no_grad()
def read_graph(loss: Tensor, module: nn.Module) -> Graph:
    """Look at the graph of a loss; must come before its backward pass.

    Args:
        loss: of a training step.
        module: whose parameters name the layers.
    """
    graph, activations = Graph(), []
    for node in _nodes(loss):
        name = node.name()
        if name in _ACTIVATIONS:
            activations.append(node)
        elif name in _CROSS_ENTROPIES and graph.classes is None:
            graph.classes = _CROSS_ENTROPIES[name](node)
        elif name.startswith("CompiledFunction"):
            graph.is_compiled = True
    if activations:
        owners = _owners(module)
        for node in sorted(activations, key=lambda node: node._sequence_nr()):
            units = _units(node, owners)
            if units is not None:
                taken = sum(units.layer == other.layer.partition(" (")[0] for other in graph.units)
                units.layer += f" ({taken + 1})" if taken else ""
                graph.units.append(units)
    return graph


def _nodes(loss: Tensor) -> Iterator[Any]:
    """The nodes of a graph, those nearest to the loss first."""
    waiting = deque([loss.grad_fn] if loss.grad_fn is not None else [])
    seen = set(waiting)  # it also keeps them alive, so that none is met under two identities
    while waiting:
        node = waiting.popleft()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen and len(seen) < _MAX_NODES:
                seen.add(following)
                waiting.append(following)


# ---------------------------------------------------------------------- activations


def _relu(node: Any) -> Tensor:
    result: Tensor = node._saved_result
    return result


def _hardtanh(node: Any) -> Tensor | None:
    inputs: Tensor = node._saved_self
    return inputs if node._saved_min_val == 0.0 else None  # ReLU6 is one from 0 to 6


def _threshold(node: Any) -> Tensor:
    inputs: Tensor = node._saved_self
    return inputs - float(node._saved_threshold)


_ACTIVATIONS = {"ReluBackward0": _relu, "HardtanhBackward0": _hardtanh, "ThresholdBackward0": _threshold}


def _units(node: Any, owners: dict[int, tuple[str, nn.Module]]) -> Units | None:
    try:
        values = _ACTIVATIONS[node.name()](node)
    except RuntimeError:  # it was changed in place, or is kept elsewhere
        return None
    if values is None or values.ndim < 2 or not values.numel() or values.is_sparse:
        return None
    layer, owner = _layer_before(node, owners)
    is_channels_first = values.ndim == 2 or isinstance(owner, _CHANNELS_FIRST)
    axis = 1 if is_channels_first else values.ndim - 1
    peaks = values.amax(dim=[other for other in range(values.ndim) if other != axis])
    return Units(layer, peaks, torch.finfo(values.dtype).max)


def _layer_before(node: Any, owners: dict[int, tuple[str, nn.Module]]) -> tuple[str, nn.Module | None]:
    """The layer whose parameters are the nearest before a node."""
    waiting, seen = deque([node]), {node}
    while waiting:
        each = waiting.popleft()
        parameter = getattr(each, "variable", None)
        if parameter is not None and id(parameter) in owners:
            return owners[id(parameter)]
        for before, _ in each.next_functions:
            if before is not None and before not in seen and len(seen) < _MAX_WAY:
                seen.add(before)
                waiting.append(before)
    return "inputs", None


def _owners(module: nn.Module) -> dict[int, tuple[str, nn.Module]]:
    """The layer that has each parameter, by the parameter's identity."""
    return {
        id(parameter): (name or type(layer).__name__, layer)
        for name, layer in module.named_modules()
        for parameter in layer.parameters(recurse=False)
    }


# ---------------------------------------------------------------------- cross-entropies


def _nll(node: Any) -> Classes:
    scores, targets = node._saved_self, node._saved_target
    if scores.ndim == 1:
        scores, targets = scores[None], targets.reshape(1)
    num_classes = scores.shape[1]
    samples = max(1, _MAX_VALUES // max(1, math.prod(scores.shape[1:])))
    scores = scores[:samples].detach().float().movedim(1, -1).reshape(-1, num_classes)
    targets = targets[:samples].reshape(-1)
    rows = max(1, _MAX_VALUES // num_classes)
    scores, targets = scores[:rows], targets[:rows]
    counted = (targets != node._saved_ignore_index) & (targets >= 0) & (targets < num_classes)
    scores, targets = scores[counted], targets[counted]
    return Classes(num_classes, functional.cross_entropy(scores, targets), targets, scores.argmax(dim=1))


def _binary(logits: Tensor, targets: Tensor) -> Classes:
    flat, expected = logits.detach().float().reshape(-1), targets.float().reshape(-1)
    classes = Classes(2, functional.binary_cross_entropy_with_logits(flat, expected))
    if logits.ndim <= 1 or len(flat) == len(logits):  # else each sample has several labels
        classes.labels, classes.predictions = (expected > 0.5).long(), (flat > 0.0).long()
    return classes


def _binary_of_probabilities(node: Any) -> Classes:
    return _binary(node._saved_self.float().logit(eps=1e-6), node._saved_target)


_CROSS_ENTROPIES = {
    "NllLossBackward0": _nll,
    "NllLoss2DBackward0": _nll,
    "BinaryCrossEntropyWithLogitsBackward0": lambda node: _binary(node._saved_self, node._saved_target),
    "BinaryCrossEntropyBackward0": _binary_of_probabilities,
}
