"""Text that a figure can show, whatever characters it is made of."""

from __future__ import annotations

from functools import cache
from typing import Any


def printable(text: str) -> str:
    r"""The text with ``U+XXXX`` for each character that cannot be seen or that the figures' font does not have.

    Draw it with ``parse_math=False``: a dollar sign would begin a formula.

    Example:
        >>> printable("a b"), printable("\t"), printable("\N{CJK UNIFIED IDEOGRAPH-4E2D}")
        ('a b', 'U+0009', 'U+4E2D')
    """
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    is_there = character.isprintable() and _font().get_char_index(ord(character))
    return character if is_there else f"U+{ord(character):04X}"


@cache
def _font() -> Any:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))
