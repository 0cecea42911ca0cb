"""The forms that values in a JSON file must have, which a stranger may have written."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.checkpointing import CheckpointError

LONGEST_TEXT = 1000


class PretrainedError(CheckpointError):
    """Weights, or what is written about them, that cannot be read, written or used; says which and why."""


def require(holds: bool, name: str, form: str, value: Any) -> None:
    """Raise a :class:`PretrainedError` that says which form a named value must have, unless it holds."""
    if not holds:
        raise PretrainedError(f"{name} must be {form}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value for a message: in ASCII, and no longer than can be read."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def is_name(value: Any, form: re.Pattern[str]) -> bool:
    """Whether a value is a string that a pattern describes from end to end."""
    return isinstance(value, str) and form.fullmatch(value) is not None


def is_text(value: Any) -> bool:
    """Whether a value is a line of text that can be shown."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value.isprintable()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def is_numbers(value: Any) -> bool:
    """Whether a value is a tuple of finite numbers, at least one."""
    return isinstance(value, tuple) and len(value) > 0 and all(map(is_number, value))


def is_dict(value: Any, is_value: Callable[[Any], bool]) -> bool:
    """Whether a value is a dictionary of such values by text."""
    return isinstance(value, dict) and all(is_text(key) and is_value(item) for key, item in value.items())


def is_arguments(value: Any) -> bool:
    """Whether a value is what something can be called with: plain values by the names of arguments."""
    return is_dict(value, is_plain) and all(map(str.isidentifier, value))


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string, a boolean, ``None``, or tuples and dictionaries of these."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if type(value) is dict:
        return is_dict(value, is_plain)
    return value is None or type(value) is bool or is_number(value) or (value == "" or is_text(value))


def with_tuples(value: Any) -> Any:
    """The value with tuples in the place of lists, however deep."""
    if isinstance(value, list | tuple):
        return tuple(map(with_tuples, value))
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return value


def read_bytes(local: Path, limit: int) -> bytes:
    """The bytes of a regular file, of which there may be at most ``limit``.

    Raises:
        PretrainedError: it is something else, larger, or cannot be read.
    """
    # Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(local, flags)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    return file.read(status.st_size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PretrainedError(f"{local} cannot be read: {reason}") from error
    raise PretrainedError(f"{local} cannot be read: it is not a regular file, or larger than {limit:,} bytes")
