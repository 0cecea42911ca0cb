"""What may be in a checkpoint: plain values and tensors, which a safe load brings back."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch.serialization import get_safe_globals

from zoo.wording import with_article

_SCALARS = (bool, int, float, str, type(None))
_SAFE = {
    *(*_SCALARS, list, tuple, dict, set, bytes, bytearray, complex, OrderedDict, Counter),
    *(torch.Size, torch.device, torch.dtype, torch.nn.Parameter),
}


def first_unsafe(value: Any, place: str = "", depth: int = 0) -> tuple[str, str] | None:
    """Where the first value is that a safe load would refuse, and its type; ``None`` if it would bring back all.

    Args:
        value: such as the contents of a checkpoint, or a dict of hyperparameters.
        place: what it is called.
        depth: how deep in a larger one it is.
    """
    inner: list[tuple[Any, str]] = []
    if isinstance(value, dict):
        inner = [(key, f"a key of {place or 'it'}") for key in value]
        inner += [(item, f"{place}[{key!r}]" if place else str(key)) for key, item in value.items()]
    elif isinstance(value, list | tuple | set):
        inner = [(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if not (type(value) in _SAFE or isinstance(value, torch.Tensor) or _is_called_safe(type(value))):
        return place, f"{type(value).__module__}.{type(value).__qualname__}"
    if depth > 50:  # it may hold itself
        return None
    return next((found for item, where in inner if (found := first_unsafe(item, where, depth + 1))), None)


def _is_called_safe(kind: type) -> bool:
    """Whether somebody passed a class to ``torch.serialization.add_safe_globals``."""
    return any(kind is (entry[0] if isinstance(entry, tuple) else entry) for entry in get_safe_globals())


def require_plain(hyperparameters: Mapping[str, Any]) -> None:
    """Refuse hyperparameters that a safe load could not bring back.

    Numbers, strings, booleans, ``None``, and lists, tuples and string-keyed dicts of these are plain.

    Raises:
        TypeError: names the hyperparameter and its type.
    """
    for name, value in hyperparameters.items():
        offender = _first_not_plain(value)
        if offender is not None:
            kind = f"{type(offender).__module__}.{type(offender).__qualname__}"
            raise TypeError(
                f"hyperparameter {name!r} holds {with_article(kind)}, which a checkpoint cannot bring back safely: "
                f"pass a plain number, string, boolean, tuple or dict, or name it in the class's not_hyperparameters"
            )


def _first_not_plain(value: Any) -> Any:
    # Exact types: a NumPy float is a float to isinstance, yet is pickled as a NumPy object.
    if type(value) in _SCALARS:
        return None
    if type(value) in (list, tuple):
        return next((found for item in value if (found := _first_not_plain(item)) is not None), None)
    if type(value) is dict:
        if any(type(key) is not str for key in value):
            return value
        return _first_not_plain(list(value.values()))
    return value
