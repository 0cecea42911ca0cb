"""How loss and metrics went while a model learned."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.figures.style import MARKERS, new_figure, plain, series, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The last two of its powers of ten a loss has to span for a logarithmic scale.
_DECADES = 2.0
_FEW = 40  # points, up to which each has a marker
_MOST_PANELS = 12
_COLUMNS = 3

_BELOW: Any = {"xytext": (0, -8), "textcoords": "offset points", "ha": "center", "va": "top"}
_NAME = re.compile(r"(?:(?P<stage>train|training|val|valid|validation)[/_.-])?(?P<metric>.+?)(?P<span>_step|_epoch)?")
_STAGES = {"train": "training", "val": "validation", "valid": "validation"}
_EPOCH = "mean of the epoch"
_LOOKS = {"training": 0, "validation": 1, f"training, {_EPOCH}": 2, f"validation, {_EPOCH}": 3, "": 0, _EPOCH: 2}


@dataclass
class Curve:
    """The values that a metric had.

    Args:
        steps: optimizer steps.
        values: as many.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def learning_curves(curves: Mapping[str, Curve], title: str) -> Figure:
    """A panel for each metric with its curves in training and validation; the losses come first.

    Args:
        curves: by the name that was logged, such as ``"train/loss"``, ``"train/loss_epoch"`` and ``"val/accuracy"``, or
            ``"val_accuracy"``. Values that are not finite leave a gap.
        title: of the figure.

    Raises:
        ValueError: there is no finite value at all.
    """
    panels = _panels(curves)
    if not panels:
        raise ValueError("nothing was logged that could be drawn: see self.log of the module and log_every_n_steps")
    shown = list(panels.items())[:_MOST_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    with style():
        figure = new_figure(title, 1.2 + 3.6 * columns, 0.8 + 2.8 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
        for ax, (metric, named) in zip(axes, shown, strict=False):
            _draw(ax, metric, named)
        for ax in axes[len(shown) :]:
            ax.remove()
        # One for all panels, below them: in a panel it would lie on the curves.
        lines = {str(line.get_label()): line for ax in axes[: len(shown)] for line in ax.get_legend_handles_labels()[0]}
        if lines:
            named_lines = sorted(lines.items(), key=lambda item: _LOOKS.get(item[0], 0))
            labels, handles = zip(*named_lines, strict=True)
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        return figure


def _panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Curves by metric, and by what the legend calls them."""
    panels: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        match = _NAME.fullmatch(name)
        if match is None or not any(map(math.isfinite, curve.values)):
            continue
        stage = match["stage"] or ""
        stage = _STAGES.get(stage, stage)
        metric = plain(match["metric"].replace("_", " "))
        label = f"{stage}, {_EPOCH}" if match["span"] == "_epoch" else stage
        panels.setdefault(metric, {})[label.removeprefix(", ")] = curve
    for named in panels.values():  # of a metric that is logged once an epoch the means would hide the values
        for label, curve in list(named.items()):
            if label.endswith(_EPOCH) and named.get(label.removesuffix(_EPOCH).removesuffix(", ")) == curve:
                del named[label]
    return dict(sorted(panels.items(), key=lambda item: not item[0].endswith("loss")))


def _draw(ax: Axes, metric: str, named: Mapping[str, Curve]) -> None:
    for label, curve in named.items():
        index = _LOOKS.get(label, 0)
        few = len(curve.steps) <= _FEW
        ax.plot(
            curve.steps,
            curve.values,
            label=label or None,
            marker=MARKERS[index] if few else "",
            markersize=4,
            linewidth=1.2,
            **series(index),
        )
    ax.ticklabel_format(useOffset=False)
    values = [value for curve in named.values() for value in curve.values if math.isfinite(value)]
    if metric.endswith("loss") and spans_decades(values):
        ax.set_yscale("log")
    elif max(values) - min(values) < 1e-6 * abs(max(values)):  # matplotlib would show rounding errors
        ax.set_ylim(min(values) - 0.05 * abs(min(values)), max(values) + 0.05 * abs(max(values)))
        ax.annotate(f"{values[-1]:.4g}", (list(named.values())[-1].steps[-1], values[-1]), **_BELOW)
    bottom, top = ax.get_ylim()
    if not metric.endswith("loss") and min(values) >= 0.0 and max(values) <= 1.0 < top:
        ax.set_ylim(bottom, 1.0 + 0.02 * (1.0 - bottom))  # a share
    ax.set_xlabel("optimizer step")
    ax.tick_params(labelbottom=True)
    ax.set_ylabel(metric)
    ax.grid(visible=True)


def spans_decades(values: Sequence[float]) -> bool:
    """Whether positive values are so far apart that a linear scale would show only the largest."""
    return min(values) > 0.0 and math.log10(max(values) / min(values)) >= _DECADES
