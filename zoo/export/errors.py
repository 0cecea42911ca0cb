"""What may be in the way of an export."""

from __future__ import annotations


class ExportError(ValueError):
    """A model that cannot be exported, or would not be the same afterwards; no file was written."""


class MissingExtraError(ImportError):
    """Packages that a format needs are not installed; says how they are."""
