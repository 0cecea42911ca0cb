"""Text that a figure can show, whatever characters it is made of."""

from __future__ import annotations

from functools import cache
from typing import Any

_NAMES = {" ": "\N{OPEN BOX}", "\t": "\N{SYMBOL FOR HORIZONTAL TABULATION}", "\n": "\N{SYMBOL FOR NEWLINE}"}


def printable(text: str) -> str:
    """The text with ``U+XXXX`` for each character that the figures' font does not have, and white space made visible.

    Draw it with ``parse_math=False``: a dollar sign would begin a formula.

    Example:
        >>> printable("a b") == "a\N{OPEN BOX}b", printable("\N{CJK UNIFIED IDEOGRAPH-4E2D}")
        (True, 'U+4E2D')
    """
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    shown = _NAMES.get(character, character)
    return shown if shown.isprintable() and _font().get_char_index(ord(shown)) else f"U+{ord(character):04X}"


@cache
def _font() -> Any:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))
