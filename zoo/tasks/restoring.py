"""A model made again from a checkpoint, which may ask for anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.checkpointing import CheckpointError, require_plain

AnyModel = TypeVar("AnyModel", bound=LightningModule)

# Metrics, buffers that are not saved, and what is thrown away while a model is made.
_EXTRA_BYTES, _TIMES_BYTES = 2**28, 16
_EXTRA_CALLS, _TIMES_CALLS = 10_000, 100


def where_it_was(storage: Any, location: str) -> Any:
    """The ``map_location`` that leaves tensors where they were saved if there is such a device, else on the CPU."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if device is not None and location.partition(":")[0] == device.type else storage


def restore(
    model_class: type[AnyModel],
    checkpoint: dict[str, Any],
    source: object,
    overrides: Mapping[str, Any],
    strict: bool | None = None,
) -> AnyModel:
    """The model in the contents of a checkpoint.

    Its hyperparameters may ask for a model of any size. So it is first made without memory (on the ``meta`` device),
    under a limit, and held against the weights; only where they fit is it made in earnest. A class that cannot be made
    so is made under the limit alone.

    Args:
        model_class: its class.
        checkpoint: what :func:`zoo.checkpointing.read_checkpoint` returned.
        source: what the checkpoint is called in messages.
        overrides: arguments that win over the checkpoint's hyperparameters.
        strict: as in ``load_from_checkpoint``.

    Raises:
        CheckpointError: no such model can be made from it.
    """
    arguments = _arguments(model_class, checkpoint, source, overrides)
    weights = checkpoint["state_dict"]
    shapes(weights)
    try:
        _try(model_class, arguments, weights, strict, source)
        with _Limit(weights):
            model = model_class(**arguments)
            model.configure_model()
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(weights, strict=model.strict_loading if strict is None else strict)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a constructor, or a state, says to values that are not its own
        raise CheckpointError(
            f"no {model_class.__name__} can be made from {source}: {' '.join(str(error).split())[:500]}"
        ) from error
    device = next((value.device for value in weights.values() if isinstance(value, Tensor)), torch.device("cpu"))
    return model.to(device)


def _arguments(
    model_class: type[LightningModule], checkpoint: dict[str, Any], source: object, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    saved = checkpoint.get(model_class.CHECKPOINT_HYPER_PARAMS_KEY, {})
    if not isinstance(saved, dict) or not all(type(name) is str for name in saved):
        raise CheckpointError(f"{source} has no hyperparameters by name")
    try:
        require_plain(saved)
    except TypeError as error:
        raise CheckpointError(f"{source} has hyperparameters that no model of the zoo has: {error}") from error
    parameters = inspect.signature(model_class).parameters
    # What is no hyperparameter of a task is not for a file to give: its weights would be those of another file.
    saved = {
        name: value for name, value in saved.items() if name not in getattr(model_class, "not_hyperparameters", ())
    }
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in {**saved, **overrides}.items() if takes_all or name in parameters}


def _try(
    model_class: type[LightningModule],
    arguments: dict[str, Any],
    weights: dict[str, Any],
    strict: bool | None,
    source: object,
) -> None:
    """Make the model without memory and hold its shapes against those of the weights."""
    try:
        with torch.device("meta"), _Limit(weights):
            model = model_class(**arguments)
            model.configure_model()
    except (NotImplementedError, RuntimeError):  # it asks its values for something while it is made
        return
    own, saved = shapes(model.state_dict()), shapes(weights)
    names = [*saved, *own] if (model.strict_loading if strict is None else strict) else own.keys() & saved.keys()
    for name in names:
        if own.get(name) != saved.get(name):
            raise CheckpointError(
                f"the weights in {source} are not those of its hyperparameters: {name} is "
                f"{saved.get(name, 'missing')} in it and {own.get(name, 'missing')} in the {model_class.__name__}"
            )


def shapes(weights: Any) -> dict[str, tuple[int, ...] | None]:
    """The shapes of weights by name; ``None`` for what is no tensor, such as a module's extra state.

    Raises:
        CheckpointError: these are no weights by name.
    """
    if not isinstance(weights, dict):
        raise CheckpointError("the checkpoint holds no weights: its 'state_dict' is no dictionary")
    return {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in weights.items()}


class _TooLargeError(Exception):
    """A model that is not the one whose weights these are."""


class _Limit(TorchFunctionMode):
    """Stops who makes far more tensors, or larger ones, than a checkpoint has weights."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        super().__init__()
        size = sum(value.nbytes for value in weights.values() if isinstance(value, Tensor))
        self.bytes = _EXTRA_BYTES + _TIMES_BYTES * size
        self.calls = _EXTRA_CALLS + _TIMES_CALLS * len(weights)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls -= 1
        if isinstance(result, Tensor):
            self.bytes -= result.numel() * result.element_size()
        if self.bytes < 0 or self.calls < 0:
            raise _TooLargeError("its hyperparameters ask for a model many times the size of its weights")
        return result
