"""The values of options on a command line that no parser has seen yet."""

from __future__ import annotations

from collections.abc import Sequence


def option_value(args: Sequence[str], option: str) -> str | None:
    """The last value that a command line gives an option."""
    values = option_values(args, option)
    return values[-1] if values else None


def without(args: Sequence[str], *options: str) -> list[str]:
    """A command line without some options and their values."""
    kept, skip = [], False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if not skip and name not in options:
            kept.append(arg)
        skip = not skip and name in options and not equals
    return kept


def option_values(args: Sequence[str], *options: str) -> list[str]:
    """All values that a command line gives an option, under any of its names."""
    values = []
    for arg, following in zip(args, [*args, ""][1:], strict=True):
        name, equals, value = arg.partition("=")
        if name in options:
            values.append(value if equals else following)
    return values
