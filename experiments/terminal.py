"""Text as a terminal can show it."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""A text, such as the name of a file, with an escape sequence for each character that could not be seen.

    What would move the cursor, or turn others around, is among them.

    >>> printable("a\x1b[2J\u202eb")
    'a\\x1b[2J\\u202eb'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def one_line(text: object) -> str:
    r"""The text in one line.

    >>> one_line("not\n   found")
    'not found'
    """
    return printable(" ".join(str(text).split()))
