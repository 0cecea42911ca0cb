"""Whether a model can learn a single batch by heart: the first thing that one that learns at all can do."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from zoo.doctor.graph import read_graph
from zoo.tasks import Task
from zoo.values import named_tensors

_OVERFITTED = 0.1
_FAILED = 0.5
_ACCURATE = 0.99
_LR = 3e-3
_GRADIENT_CLIP_VAL = 1.0
_READ_EVERY = 10  # steps


class OverfitError(RuntimeError):
    """A model that cannot be tried on a batch; says why."""


@dataclass(frozen=True)
class Overfit:
    """What came of it.

    Args:
        is_overfitted: whether the loss (the cross-entropy without weights and smoothing, where there is one) fell to a
            tenth, or at least 99 % of the batch is right.
        steps: how many it took.
        samples: of the batch.
        first_loss: before the first step.
        last_loss: behind the last one.
        accuracy: on the batch, of a classifier.
        has_failed: whether the loss did not even fall to a half; between the two the steps may have been too few.
    """

    is_overfitted: bool
    steps: int
    samples: int
    first_loss: float
    last_loss: float
    accuracy: float | None = None
    has_failed: bool = False

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def overfit(
    module: LightningModule,
    batch: Any,
    steps: int = 300,
    lr: float = _LR,
    precision: Callable[[], AbstractContextManager[Any]] | None = None,
) -> Overfit:
    """Train a copy of a module on one batch, by an Adam of its own, until it knows it by heart.

    The module, its gradients, the batch and all random states are behind it as they were before. In the copy nothing
    is dropped out, and what it logs goes nowhere. A ``training_step`` that reaches for the trainer gets the module's
    own.

    Args:
        module: under automatic optimization; its ``training_step`` is called.
        batch: on the module's device.
        steps: at most.
        lr: of Adam; gradients are clipped at norm 1.
        precision: makes what the forward pass of a step runs in, such as an autocast.

    Raises:
        ValueError: fewer than one step.
        OverfitError: it cannot be tried: the module cannot be copied, has fewer parameters to be trained than the batch
            has targets, has layers without a size yet, or gives no loss; or the batch is empty.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")
    samples = next((len(tensor) for _, tensor in named_tensors(batch) if tensor.ndim), 1)
    if not samples:
        raise OverfitError("the batch is empty")
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise OverfitError("the module has layers whose size is not known before its first step")
    size = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    values = _num_targets(batch) or samples
    if size < values:
        raise OverfitError(f"{size} parameters cannot learn {values} targets by heart")
    with _random_states_kept(module.device), torch.enable_grad():
        try:
            pupil = _copy_of(module)
            batch = copy.deepcopy(batch)
            return _train(pupil, batch, samples, steps, lr, precision or nullcontext)
        except OverfitError:
            raise
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise OverfitError(f"a copy of the model could not be trained: {said:.300}") from error


def _num_targets(batch: Any) -> int | None:
    """The numbers to be learnt from a batch, if it says which they are; of one tensor that is all, all of them."""
    tensors = dict(named_tensors(batch))
    targets = next(iter(tensors.values())) if len(tensors) == 1 else tensors.get("targets")
    return None if targets is None else targets.numel()


def _train(
    pupil: LightningModule,
    batch: Any,
    samples: int,
    steps: int,
    lr: float,
    precision: Callable[[], AbstractContextManager[Any]],
) -> Overfit:
    parameters = [parameter for parameter in pupil.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    first: float | None = None
    for step in range(steps + 1):
        with precision():
            loss = _loss_of(pupil, batch)
        if step % _READ_EVERY == 0 or step == steps:
            value, accuracy, chance = _read(loss, pupil)
            first = value if first is None else first
            is_overfitted = value <= _OVERFITTED * (chance or first) or (accuracy or 0.0) >= _ACCURATE
            if is_overfitted or step == steps or not math.isfinite(value):
                has_failed = not is_overfitted and not value <= _FAILED * (chance or first)
                return Overfit(is_overfitted, step, samples, first, value, accuracy, has_failed)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _GRADIENT_CLIP_VAL)
        optimizer.step()
    raise AssertionError


def _read(loss: Tensor, pupil: nn.Module) -> tuple[float, float | None, float | None]:
    """Of a classifier its cross-entropy, its accuracy, and the cross-entropy of knowing nothing; else the loss."""
    classes = read_graph(loss, pupil).classes
    if classes is None:
        return float(loss.detach()), None, None
    return float(classes.cross_entropy), classes.count()[2], math.log(classes.num_classes)


def _loss_of(pupil: LightningModule, batch: Any) -> Tensor:
    if isinstance(pupil, Task):
        return pupil._shared_step(batch)[2]
    takes_index = is_param_in_hook_signature(pupil.training_step, "batch_idx", min_args=2)
    returned = pupil.training_step(batch, 0) if takes_index else pupil.training_step(batch)
    loss = returned.get("loss") if isinstance(returned, dict) else returned
    if not isinstance(loss, Tensor) or not loss.requires_grad or loss.numel() != 1:
        raise OverfitError("its training_step gives no loss that can be differentiated")
    return loss


def _copy_of(module: LightningModule) -> LightningModule:
    """A copy in training mode, without dropout, that logs nowhere."""
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # need not be copied
    try:
        pupil = copy.deepcopy(module)
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
    pupil.__class__ = type(type(module).__name__, (_Mute, type(module)), {})
    pupil._trainer = module._trainer
    pupil.train()
    for part in pupil.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()
        elif isinstance(part, nn.RNNBase | nn.MultiheadAttention):
            part.dropout = 0.0
    return pupil


@contextmanager
def _random_states_kept(device: torch.device) -> Iterator[None]:
    """Seeds all draws, and gives back the states of whatever draws, also when something is raised."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global one is what others use
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(0)
            if device.type == "cuda":
                torch.cuda.default_generators[device.index or 0].manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if mps is not None:
            torch.mps.set_rng_state(mps)


class _Mute:
    """Logs nothing."""

    logger = None
    loggers: tuple[Any, ...] = ()

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_dict(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""
