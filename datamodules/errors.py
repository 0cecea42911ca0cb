"""The error of this package, and the check that every part needs."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used; says what is wrong with them and what to do."""


def check_positive(**values: int) -> None:
    """Raise a :class:`DataError` unless every named value is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"{name} must be an integer of at least 1, got {value!r}")
