"""Figures of a training from inside: gradients and dead units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.figures.style import MARKERS, new_figure, plain, series, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LINES = 7
_MAX_NAMES = 30
_NAME_LENGTH = 36
_FEW_LOOKS = 12
_WIDTH = 7.2
_NORM = "gradient norm"

Values = Sequence[float | None]
"""One a look, ``None`` where there is none."""


def gradient_norms(
    steps: Sequence[int],
    norms: Values,
    layers: Mapping[str, Values],
    title: str,
    gradient_clip_val: float | None = None,
) -> Figure:
    """The norms of all gradients, and those of the layers, over the steps.

    Args:
        steps: that were looked at, rising.
        norms: of all gradients, one a step.
        layers: of each layer, one a step; more than seven are drawn as a map below.
        title: of the figure.
        gradient_clip_val: drawn as a line, if there is one.

    Raises:
        ValueError: no steps.
    """
    _check(steps)
    with style():
        if len(layers) > _MAX_LINES:
            figure = new_figure(title, _WIDTH, 3.6 + min(0.24 * len(layers), 6.5))
            whole, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
            _all_layers(whole, steps, norms, gradient_clip_val)
            whole.legend()
            _map(figure, below, steps, {name: _positive(values) for name, values in layers.items()}, _NORM, is_log=True)
            _label_steps(below, steps)
        else:
            figure = new_figure(title, _WIDTH, 4.8)
            whole = figure.subplots()
            _all_layers(whole, steps, norms, gradient_clip_val)
            if len(layers) > 1:  # a single one is all of them
                _lines(whole, steps, {name: _positive(values) for name, values in layers.items()})
            figure.legend(loc="outside lower center", ncols=3)
            _label_steps(whole, steps)
    return figure


def dead_units(steps: Sequence[int], shares: Mapping[str, Values], title: str, looks: int = 5) -> Figure:
    """The share of the units behind each layer that no sample made greater than zero, over the steps.

    Args:
        steps: that were looked at, rising.
        shares: of each of the layers, one a step, from 0 to 1; more than seven are drawn as a map.
        title: of the figure.
        looks: over which a share is taken.

    Raises:
        ValueError: no steps.
    """
    _check(steps)
    label = f"units zero for all samples of {looks} looks [%]"
    rows = {name: [math.nan if value is None else 100.0 * value for value in shares[name]] for name in shares}
    with style():
        if len(rows) > _MAX_LINES:
            figure = new_figure(title, _WIDTH, min(1.5 + 0.26 * len(rows), 9.0))
            axes = figure.subplots()
            _map(figure, axes, steps, rows, label, is_log=False)
        else:
            figure = new_figure(title, _WIDTH, 4.0)
            axes = figure.subplots()
            _lines(axes, steps, rows)
            figure.legend(loc="outside lower center", ncols=3)
            highest = max([10.0, *(value for values in rows.values() for value in values if math.isfinite(value))])
            axes.set_ylim(-0.02 * highest, 1.05 * highest)
            axes.set_ylabel(label)
        _label_steps(axes, steps)
    return figure


def _check(steps: Sequence[int]) -> None:
    if not steps:
        raise ValueError("there is no look to draw")


def _all_layers(axes: Any, steps: Sequence[int], norms: Values, gradient_clip_val: float | None) -> None:
    label = "all layers, before clipping" if gradient_clip_val else "all layers"
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, _positive(norms), color="black", linewidth=2.2, marker=marker, label=label)
    if gradient_clip_val:
        axes.axhline(gradient_clip_val, color="0.4", linestyle=":", label=f"clipped at {gradient_clip_val:g}")
    axes.set_yscale("log")
    axes.set_ylabel(_NORM)
    axes.grid(visible=True, axis="y")


def _lines(axes: Any, steps: Sequence[int], lines: Mapping[str, list[float]]) -> None:
    for index, (name, values) in enumerate(lines.items()):
        # Where lines lie upon each other their markers take turns.
        every = (index, len(lines)) if len(steps) > _FEW_LOOKS else 1
        marker = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4, "markevery": every}
        axes.plot(steps, values, label=_short(name), **marker, **series(index))
    axes.grid(visible=True, axis="y")


def _map(
    figure: Figure, axes: Any, steps: Sequence[int], rows: Mapping[str, list[float]], label: str, is_log: bool
) -> None:
    """One row a layer, light for much and dark for little, grey for nothing."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    values = np.array(list(rows.values()))
    known = values[np.isfinite(values)]
    least, most = (known.min(), known.max()) if known.size else (0.1, 1.0)
    norm = LogNorm(least, max(most, 1.01 * least)) if is_log else Normalize(0.0, max(most, 10.0))
    # Each look reaches to the next.
    edges = [*steps, 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1]
    mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1), values, norm=norm, cmap="cividis")
    axes.set_facecolor("0.85")
    axes.invert_yaxis()
    every = -(-len(rows) // _MAX_NAMES)
    axes.set_yticks(np.arange(0, len(rows), every) + 0.5, [_short(name) for name in list(rows)[::every]], fontsize=8)
    figure.colorbar(mesh, ax=axes, label=label if known.size == values.size else f"{label}; grey: none")


def _label_steps(axes: Any, steps: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    if len(steps) == 1:
        axes.set_xlim(steps[0] - 1, steps[0] + 1)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _positive(values: Values) -> list[float]:
    """What a logarithmic axis can show, and gaps in the place of the rest."""
    return [value if value is not None and 0.0 < value < math.inf else math.nan for value in values]


def _short(name: str) -> str:
    """A layer's name as it is, but for its middle."""
    if len(name) > _NAME_LENGTH:
        name = f"{name[: _NAME_LENGTH // 2]}…{name[1 - _NAME_LENGTH // 2 :]}"
    # What begins with an underscore is left out of a legend.
    return (" " if name.startswith("_") else "") + plain(name)
