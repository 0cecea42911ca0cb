"""Values as people read them."""

from __future__ import annotations

import math

_LONGEST = 2000


def visible(text: str) -> str:
    r"""The text with an escape sequence for each character that could not be seen, or would turn others around.

    >>> visible("a\x1b[2J\u202eb")
    'a\\x1b[2J\\u202eb'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def one_line(text: str) -> str:
    r"""The text in one line, for a terminal.

    >>> one_line("not\n   found")
    'not found'
    """
    return visible(" ".join(text.split()))


def shorten(text: str, longest: int) -> str:
    """The text, its middle left out if there are more characters than ``longest``.

    >>> shorten("2026-01-31_12-00-00", 9)
    '2026…0-00'
    """
    kept = longest - 1
    return text if len(text) <= longest else f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def limited(text: str) -> str:
    """The text, or as much of one without end as anybody will read."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def number(value: float) -> str:
    """Four decimals where they say something, else four digits.

    >>> number(0.97500002), number(1.234e-7), number(12345.678), number(float("nan"))
    ('0.9750', '1.234e-07', '1.235e+04', 'not finite')
    """
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.4f}" if value == 0.0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds, and how many hours and minutes that is where there are more than a few.

    >>> duration(15.18), duration(75.0), duration(7384.2)
    ('15.2 s', '75.0 s', '7,384 s (2 h 3 min)')
    """
    if not math.isfinite(seconds) or seconds < 600:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{seconds:,.0f} s ({f'{hours} h ' if hours else ''}{rest} min)"


def byte_size(size: int) -> str:
    """A file's size.

    >>> byte_size(999), byte_size(312_400), byte_size(4_200_000)
    ('999 bytes', '312 kB', '4.2 MB')
    """
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"
