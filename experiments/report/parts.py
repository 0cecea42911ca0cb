"""What the sections of a page are made of: tables, pictures, marks that need no colour."""

from __future__ import annotations

import base64
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from experiments.report.markup import Markup, breakable, element, fragment, lines
from experiments.report.text import number

REACHED, SHORT, NONE = "✓", "✗", "—"
_WIDE = 1.85  # of width to height, from which a picture gets a row of its own


@dataclass(frozen=True)
class RunName:
    """How a run is called on a page.

    Args:
        place: its number in the order given, from 1.
        label: the end of its directory's path.
        alone: whether it is the page's only one, which needs no number.
    """

    place: int
    label: str
    alone: bool

    def __str__(self) -> str:
        return self.label if self.alone else f"{self.place} {self.label}"

    @property
    def badge(self) -> Markup:
        """The number, if there are others, and the label."""
        label = element("span", self.label, class_="label")
        return label if self.alone else fragment(element("span", str(self.place), class_="badge"), " ", label)


def section(anchor: str, title: str, *children: str) -> Markup:
    """A section with a heading that can be linked to; nothing where there is nothing in it."""
    if not any(children):
        return Markup("")
    link = element("a", "#", href=f"#{anchor}", class_="anchor", aria_label=f"Link to “{title}”")
    heading = element("h2", title, " ", link, id=f"{anchor}-title")
    return element("section", lines(["", heading, *children, ""]), id=anchor, aria_labelledby=f"{anchor}-title")


def exact(value: float, class_: str | None = None) -> Markup:
    """A number, which is there in full for programs."""
    if not math.isfinite(value):
        return element("span", number(value), class_=class_)
    return element("data", number(value), value=repr(value), class_=class_)


def figure_of(value: float | None, mark: str = "") -> Markup:
    """A table's cell with a number, and with a mark before it."""
    if value is None:
        return element("td", NONE, class_="number none")
    if not mark:
        return element("td", exact(value), class_="number")
    return element("td", element("span", mark, class_="best"), " ", element("strong", exact(value)), class_="number")


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Markup],
    foot: Markup | None = None,
    numbers: Container[int] = (),
) -> Markup:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        caption: what it shows.
        head: the columns' names; the first is that of the rows'.
        rows: ``tr`` elements.
        foot: a last ``tr``.
        numbers: the places of the columns that hold numbers.
    """
    columns = element(
        "tr",
        *(
            element("th", breakable(name), scope="col", class_="number" if place in numbers else None)
            for place, name in enumerate(head)
        ),
    )
    body = [element("thead", columns), element("tbody", lines(["", *rows, ""]))]
    if foot is not None:
        body.append(element("tfoot", foot))
    whole = element("table", lines(["", element("caption", caption), *body, ""]))
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def name_column(name: str, *marks: str) -> Markup:
    """The first cell of a row."""
    return element("th", name, *marks, scope="row")


def facts_card(title: str, facts: Mapping[str, str], *more: str) -> Markup:
    """A small table of names and values, with a heading."""
    rows = [element("tr", name_column(breakable(name)), element("td", value)) for name, value in facts.items()]
    whole = element("table", element("tbody", lines(["", *rows, ""])), aria_label=title) if rows else Markup("")
    return element("div", lines(["", element("h3", title), whole, *more, ""]), class_="card")


def picture(
    contents: bytes,
    media_type: str,
    alt: str,
    size: tuple[int, int],
    caption: str | None = None,
    anchor: str | None = None,
) -> Markup:
    """A picture that is part of the page, on white, with a caption if its own title is not enough."""
    width, height = size
    data = base64.b64encode(contents).decode()
    image = element("img", src=f"data:{media_type};base64,{data}", alt=alt, width=width, height=height)
    wide = "wide" if width > _WIDE * height else None
    below = "" if caption is None else element("figcaption", caption)
    return element("figure", image, below, class_=wide, id=anchor)


def note(*lines_of_it: str) -> Markup:
    """Something to know before the rest is read; nothing if there is nothing."""
    if not lines_of_it:
        return Markup("")
    return element("div", lines(["", *(element("p", line) for line in lines_of_it), ""]), class_="note", role="note")
