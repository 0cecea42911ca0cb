"""Figures of a training from inside: gradients and dead units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.figures.style import MARKERS, new_figure, series, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LINES = 7
_MAX_NAMES = 30
_NAME_LENGTH = 28

Values = Sequence[float | None]
"""One a step, ``None`` where there is none."""


def gradient_norms(
    steps: Sequence[int],
    norms: Values,
    layers: Mapping[str, Values],
    title: str,
    gradient_clip_val: float | None = None,
) -> Figure:
    """The norm of all gradients over the steps, and below it those of the layers.

    Args:
        steps: that were looked at, rising.
        norms: of all gradients, one a step.
        layers: of each layer, one a step; more than seven are drawn as a map.
        title: of the figure.
        gradient_clip_val: drawn as a line, if there is one.
    """
    with style():
        is_map = len(layers) > _MAX_LINES
        figure = new_figure(title, width=7.2, height=(3.6 + min(0.24 * len(layers), 6.5)) if is_map else 4.8)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2]) if is_map else (figure.subplots(), None)
        whole = series(6) | {"linestyle": "-", "linewidth": 2.2}
        above.plot(
            steps, _positive(norms), label="all layers" + (", before clipping" if gradient_clip_val else ""), **whole
        )
        if gradient_clip_val:
            above.axhline(gradient_clip_val, color="0.4", linestyle=":", label=f"clipped at {gradient_clip_val:g}")
        above.set_yscale("log")
        above.set_ylabel("gradient norm")
        if below is not None:
            above.grid(visible=True, axis="y")
            above.legend()
            _map(figure, below, steps, layers, "gradient norm", is_log=True)
        else:
            lines = {name: _positive(values) for name, values in layers.items()} if len(layers) > 1 else {}
            _lines(figure, above, steps, lines)
        _label_steps(above if below is None else below)
    return figure


def dead_units(steps: Sequence[int], shares: Mapping[str, Values], title: str) -> Figure:
    """The share of the units behind each layer that no sample made greater than zero, over the steps.

    Args:
        steps: that were looked at, rising.
        shares: of each layer, one a step, from 0 to 1; more than seven are drawn as a map.
        title: of the figure.
    """
    with style():
        percent = {
            name: [math.nan if value is None else 100.0 * value for value in values] for name, values in shares.items()
        }
        figure = new_figure(title, width=7.2, height=max(4.0, min(1.5 + 0.26 * len(shares), 9.0)))
        axes = figure.subplots()
        _label_steps(axes)
        if len(shares) <= _MAX_LINES:
            _lines(figure, axes, steps, percent)
            axes.set_ylabel("units that fired for no sample [%]")
            highest = max(
                (value for values in percent.values() for value in values if math.isfinite(value)), default=0.0
            )
            axes.set_ylim(-0.02 * max(10.0, highest), max(10.0, 1.1 * highest))
        else:
            _map(figure, axes, steps, percent, "units that fired for no sample [%]", is_log=False)
    return figure


def _label_steps(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _lines(figure: Figure, axes: Any, steps: Sequence[int], lines: Mapping[str, Values]) -> None:
    for index, (name, values) in enumerate(lines.items()):
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(steps, values, marker=marker, markersize=3.5, label=_short(name), **series(index))
    axes.grid(visible=True, axis="y")
    figure.legend(loc="outside lower center", ncols=3)


def _map(figure: Figure, axes: Any, steps: Sequence[int], rows: Mapping[str, Values], label: str, is_log: bool) -> None:
    """One row a layer, light for much and dark for little."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    numbers = [[np.nan if value is None else value for value in values] for values in rows.values()]
    values = np.array(numbers, dtype=float)
    values[~np.isfinite(values) | ((values <= 0.0) if is_log else False)] = np.nan
    least, most = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (1.0, 1.0)
    norm = LogNorm(least, max(most, least * 1.01)) if is_log else Normalize(0.0, max(most, 10.0))
    # Each look reaches to the next.
    edges = [*steps, 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1]
    mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1), values, norm=norm, cmap="cividis")
    axes.set_facecolor("0.85")  # where there is no value
    axes.invert_yaxis()
    every = -(-len(rows) // _MAX_NAMES)
    axes.set_yticks(np.arange(0, len(rows), every) + 0.5, [_short(name) for name in list(rows)[::every]], fontsize=8)
    figure.colorbar(mesh, ax=axes, label=label)


def _positive(values: Values) -> list[float]:
    """What a logarithmic axis can show, and gaps in the place of the rest."""
    return [value if value is not None and 0.0 < value < math.inf else math.nan for value in values]


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else "…" + name[1 - _NAME_LENGTH :]
