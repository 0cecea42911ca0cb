"""What all figures share: size, fonts, and series that can be told apart without colour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito (2008), which people who see fewer colours can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.alpha": 0.3,
    "legend.edgecolor": "none",  # a white ground, where there are curves below
    "savefig.dpi": 120,
    "figure.dpi": 120,
}


@contextmanager
def style() -> Iterator[None]:
    """The zoo's look, whatever a user's own matplotlib settings are; theirs are back behind the block."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(title: str, width: float = 6.4, height: float = 4.8) -> Figure:
    """An empty figure with a title, laid out without overlaps.

    Args:
        title: such as ``"mnist_cnn: confusion matrix"``.
        width: in inches.
        height: in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_SETTINGS["figure.dpi"], layout="constrained")
    figure.suptitle(plain(title), fontweight="bold")
    return figure


def plain(text: str) -> str:
    """A name from outside as it is, whatever matplotlib would make of dollars in it."""
    return text.replace("$", r"\$")


def short(text: str, length: int = 14) -> str:
    """A name cut to a length that fits."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def series(index: int) -> dict[str, Any]:
    """Colour and line style of the series with that number, so that no two of a figure differ by colour alone."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": LINE_STYLES[index % len(LINE_STYLES)]}
