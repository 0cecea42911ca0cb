"""Curves over the steps, drawn from what was logged: of one run by stage, of several one above the other."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.report.history import Series
from experiments.report.runs import Run
from experiments.report.text import number, shorten
from experiments.terminal import printable
from zoo.figures.style import COLORS, LINE_STYLES, MARKERS, new_figure, series, style

_POINTS = 600  # more than a curve in a report has pixels
_FEW = 40  # points, up to which each has a marker
_MOST_CHARTS = 24
_LONGEST_LABEL, _LONGEST_TITLE = 28, 50  # characters
_MOST_NAMES, _LONGEST_LEGEND = 6, 14  # curves
_LONGEST_BESIDE = 22  # characters of names of which two have room beside each other
_LEGEND_ROW = 0.18  # inches
_BEHIND_NUMBER = "  "
TELLABLE = math.lcm(len(COLORS), len(LINE_STYLES))  # curves of a chart, no two of which look the same
_LARGEST = 1e100  # what an axis can still be drawn for
_DECADES = 2.0  # that a loss spans before its scale is logarithmic
_EPOCH = "_epoch"
_STAGE = re.compile(r"(train|val)/(.+)")
_STAGES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Args:
        metric: what it shows.
        svg: the picture.
        description: for who cannot see it.
        size: width and height in CSS pixels.
    """

    metric: str
    svg: bytes
    description: str
    size: tuple[int, int]


def charts_of(runs: Sequence[Run], labels: Sequence[str]) -> tuple[list[Chart], list[str]]:
    """A chart for each metric that was logged more than once, and the names of those that there are too many for."""
    panels = _by_stage(runs[0]) if len(runs) == 1 else _by_run(runs, labels)
    drawable = {
        metric: curves
        for metric, curves in panels.items()
        if any(len(curve.finite) > 1 for curve in curves.values()) and not metric.startswith("test/")
    }
    names = sorted(drawable, key=_order)
    return [_draw(name, drawable[name]) for name in names[:_MOST_CHARTS]], names[_MOST_CHARTS:]


def _order(metric: str) -> tuple[bool, bool, str, str]:
    stage, _, name = metric.rpartition("/")
    return name.removesuffix(_EPOCH) != "loss", not name.endswith("accuracy"), name, stage


def _by_stage(run: Run) -> dict[str, dict[str, Series]]:
    """A panel for each metric, with its curves in training and validation."""
    panels: dict[str, dict[str, Series]] = {}
    for name, curve in run.history.series.items():
        match = _STAGE.fullmatch(name)
        if match is None:
            panels.setdefault(name, {})[""] = curve
            continue
        metric = match[2].removesuffix(_EPOCH)
        label = _STAGES[match[1]] + (", mean of the epoch" if match[2].endswith(_EPOCH) else "")
        panels.setdefault(metric, {})[label] = curve
    return panels


def _by_run(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, dict[str, Series]]:
    """A panel for each metric of each stage, with a curve for each run; of two that say the same, the smoother one."""
    names = dict.fromkeys(name for run in runs for name in run.history.series)
    panels = {}
    for name in names:
        curves = {
            f"{index + 1}{_BEHIND_NUMBER}{shorten(label, _LONGEST_LABEL)}": run.history.series.get(name, Series())
            for index, (run, label) in enumerate(zip(runs, labels, strict=True))
        }
        panels[name] = curves
    for name in [name for name in names if name.endswith(_EPOCH)]:
        steps = panels.get(name.removesuffix(_EPOCH))
        if steps is not None:
            smoother = all(len(panels[name][label].finite) > 1 or not curve.finite for label, curve in steps.items())
            del panels[name.removesuffix(_EPOCH) if smoother else name]
    return panels


def _draw(metric: str, curves: Mapping[str, Series]) -> Chart:
    buffer = io.BytesIO()
    drawn = {label: thinned(curve) for label, curve in curves.items()}
    many = len(drawn) > _MOST_NAMES
    columns = 1 if any(len(label) > _LONGEST_BESIDE for label in drawn) else 2
    width, height = 4.8, 3.4 + (0.0 if many or not any(drawn) else _LEGEND_ROW * math.ceil(len(drawn) / columns))
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in letters that the font has not
        import matplotlib as mpl

        mpl.rcParams["svg.hashsalt"] = "report"  # the same runs make the same page
        figure = new_figure(_plain(metric), width, height)
        ax = figure.subplots()
        for index, (label, curve) in enumerate(drawn.items()):
            if not curve.steps:  # a run that has not logged it; the others keep their colours
                continue
            few = len(curve.steps) <= _FEW
            ax.plot(
                curve.steps,
                curve.values,
                label=_plain(label.partition(_BEHIND_NUMBER)[0] if many else label) or None,
                marker=MARKERS[index % len(MARKERS)] if few else "",
                markersize=4,
                linewidth=1.4,
                **series(index),
            )
        values = [value for curve in drawn.values() for value in curve.finite]
        if metric.removesuffix(_EPOCH).endswith("loss") and _spans_decades(values):
            ax.set_yscale("log")
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(_plain(metric))
        ax.grid(visible=True)
        if many and len(drawn) <= TELLABLE:  # their numbers, under which the page names them
            beside = math.ceil(len(drawn) / _LONGEST_LEGEND)
            figure.legend(loc="outside right center", ncols=beside, fontsize=8, handlelength=3.0, columnspacing=1.0)
        elif not many and any(drawn):  # below, not on the curves
            figure.legend(loc="outside lower center", ncols=columns, fontsize=8)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Chart(metric, buffer.getvalue(), _description(metric, curves), (round(width * 96), round(height * 96)))


def thinned(curve: Series) -> Series:
    """A curve of few enough points to be drawn: of each stretch the lowest and the highest, so that no peak is lost."""
    values = [value if abs(value) <= _LARGEST else math.nan for value in curve.values]
    if len(values) <= _POINTS:
        return Series(curve.steps, values)
    stretch = math.ceil(len(values) / (_POINTS // 2))
    kept = {0, len(values) - 1}
    for start in range(0, len(values), stretch):
        places = [place for place in range(start, min(start + stretch, len(values))) if math.isfinite(values[place])]
        if places:
            kept |= {min(places, key=values.__getitem__), max(places, key=values.__getitem__)}
        else:
            kept.add(start)  # a gap
    return Series([curve.steps[place] for place in sorted(kept)], [values[place] for place in sorted(kept)])


def _spans_decades(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0.0 and math.log10(max(values) / min(values)) >= _DECADES


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return shorten(printable(text), _LONGEST_TITLE).replace("$", r"\$")


def _description(metric: str, curves: Mapping[str, Series]) -> str:
    ends = [
        f"{label or metric} from {number(curve.finite[0])} to {number(curve.finite[-1])}"
        for label, curve in curves.items()
        if curve.finite
    ]
    return f"{metric} over the optimizer steps: {'; '.join(ends)}"
