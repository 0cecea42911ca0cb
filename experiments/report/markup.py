"""HTML in which everything is escaped that is not known to be HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from experiments.report.text import visible

_VOID = frozenset({"br", "hr", "img", "meta"})


class Markup(str):
    """Text that is HTML already. Whatever is made of it by other means than these functions is plain text again."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | int | None) -> Markup:
    """An element; children that are no :class:`Markup` are text, and escaped.

    Args:
        name: of the tag.
        *children: what is in it.
        **attributes: by name, with ``_`` for ``-`` and at the end where Python keeps the word for itself
            (``class_``, ``aria_label``); those that are ``None`` are left out.

    >>> element("p", "1 < 2 ", element("b", "so"), class_="note")
    '<p class="note">1 &lt; 2 <b>so</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{fragment(*children)}</{name}>")


def fragment(*children: str) -> Markup:
    """Several children of an element, one after another."""
    return Markup("".join(child if isinstance(child, Markup) else _escape(child) for child in children))


def lines(children: Iterable[str]) -> Markup:
    """The same, each on a line of its own, for a source that can be read."""
    return Markup("\n".join(fragment(child) for child in children if child))


def breakable(name: str) -> Markup:
    """A name of several parts, which may go on in another line behind each.

    >>> breakable("max_epochs")
    'max_<wbr>epochs'
    """
    parts = re.split(r"(?<=[_./])(?=[^_./])", name)
    return Markup("<wbr>".join(map(_escape, parts)))


def _escape(text: str) -> str:
    return html.escape(visible(text))
