"""The sections of a page, each a function of the runs; of one that has nothing to show there is no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from experiments.report.charts import TELLABLE, charts_of
from experiments.report.comparison import (
    best,
    deviating,
    differing,
    mode_of,
)
from experiments.report.markup import Markup, element, fragment, lines
from experiments.report.parts import (
    NONE,
    RunName,
    facts_card,
    figure_of,
    name_column,
    note,
    picture,
    section,
    table,
)
from experiments.report.runs import METRICS, Run

_GROUPS = {
    "data": "Data",
    "training": "Training",
    "seconds": "Time",
    "environment": "Hardware",
    "versions": "Versions",
    "other": "Other",
}
_SECTIONS = {"model": "Model", "data": "Data", "trainer": "Trainer", "": "Run"}
_BESIDE_METRICS = (("training", "epochs"), ("training", "parameters"), ("seconds", "total"))
_UNSET = "null"
_MOST_EPOCHS, _MOST_COLUMNS, _MOST_NAMES = 40, 24, 20


# ---------------------------------------------------------------------- learning history


def history(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    """Curves, and of a single run the table of its epochs."""
    drawn = [figure for figure in runs[0].figures if figure.is_learning_curves] if len(runs) == 1 else []
    children: list[str] = []
    if drawn:
        pictures = [_figure(figure.png, figure.caption, figure.size, runs[0]) for figure in drawn]
        children.append(element("div", *pictures, class_="gallery"))
    else:
        charts, left_out = charts_of(runs, [name.label for name in names])
        pictures = [picture(chart.svg, "image/svg+xml", chart.description, chart.size) for chart in charts]
        if pictures:
            children.append(element("div", lines(["", *pictures, ""]), class_="gallery charts"))
        if pictures and len(runs) > TELLABLE:
            told = (
                f"So many curves cannot be told apart ({len(runs)}, where {TELLABLE} could): see how far they spread."
            )
            children.append(element("p", told, class_="muted"))
        if left_out:
            children.append(element("p", f"Not drawn: {_listed(left_out)}.", class_="muted"))
    if len(runs) == 1:
        children.append(_epochs(runs[0]))
    return section("history", "Learning history", *children)


def _epochs(run: Run) -> Markup:
    epochs = run.history.epochs
    times = Counter(name for values in epochs.values() for name in values)
    several = [name for name in run.history.series if times[name] > 1 and not name.startswith("test/")]
    metrics = [name for name in several if f"{name}_epoch" not in times][:_MOST_COLUMNS]
    if not metrics:
        return Markup("")
    epochs = {epoch: values for epoch, values in epochs.items() if any(name in values for name in metrics)}
    every = -(-len(epochs) // _MOST_EPOCHS)
    marked = {
        name: best([values.get(name) for values in epochs.values()], mode_of(name, [run]))
        for name in metrics
        if name.startswith("val/")
    }
    rows = []
    for place, (epoch, values) in enumerate(epochs.items()):
        is_best = {name for name, places in marked.items() if place in places and place == min(places)}
        if place % every == 0 or place == len(epochs) - 1 or is_best:
            cells = [figure_of(values.get(name), "best" if name in is_best else "") for name in metrics]
            rows.append(element("tr", name_column(f"{epoch + 1}"), *cells))
    caption = f"Last value of each metric in each of {len(epochs):,} epochs"
    if every > 1:
        caption += f" (every {every}th, the best and the last are shown; {METRICS} has all)"
    return table(caption, ["epoch", *metrics], rows, numbers=range(1, 1 + len(metrics)))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", and {rest:,} more" if rest > 0 else "")


# ---------------------------------------------------------------------- figures


def figures(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    """All figures: of several runs those of one name side by side."""
    if len(runs) == 1:
        shown = [
            _figure(figure.png, figure.caption, figure.size, runs[0], f"figure-{place}")
            for place, figure in enumerate(runs[0].figures, 1)
            if not figure.is_learning_curves
        ]
        return section("figures", "Figures", element("div", lines(["", *shown, ""]), class_="gallery") if shown else "")
    captions = {figure.name: figure.caption for run in runs for figure in run.figures}
    groups = []
    for wanted, caption in captions.items():
        shown = [
            _figure(figure.png, name.badge, figure.size, run, alt=f"{caption} of {name}")
            for run, name in zip(runs, names, strict=True)
            for figure in run.figures
            if figure.name == wanted
        ]
        groups.append(element("h3", caption))
        groups.append(element("div", lines(["", *shown, ""]), class_="gallery"))
    return section("figures", "Figures", *groups)


def _figure(
    png: bytes, caption: str, size: tuple[int, int], run: Run, anchor: str | None = None, alt: str | None = None
) -> Markup:
    alt = alt or f"{caption} of {run.experiment or run.directory.name}"
    return picture(png, "image/png", alt, size, caption, anchor)


# ---------------------------------------------------------------------- configuration


def configuration(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    """The options of one run, or what those of several differ in."""
    configured = [(run, name) for run, name in zip(runs, names, strict=True) if run.config]
    if not configured:
        return Markup("")
    configs = [run.config for run, _ in configured]
    again = lines(_again(run, name) for run, name in configured)
    if len(configured) == 1:
        return section("configuration", "Configuration", _cards(configs[0]), again)
    others = differing(configs)
    head = ["option", *(str(name) for _, name in configured)]
    rows = [_option_row(option, [config.get(option) for config in configs]) for option in others]
    difference = (
        table("What the runs differ in; values that most runs do not have are marked", head, rows)
        if others
        else element("p", "The runs have the same configuration.")
    )
    same = {option: value for option, value in configs[0].items() if option not in others}
    rest = element("details", element("summary", f"The same in all runs: {len(same)} options"), _cards(same))
    return section("configuration", "Configuration", difference, rest if same else "", again)


def _option_row(option: str, values: Sequence[str | None]) -> Markup:
    unusual = deviating(values)
    cells = [
        element("td", element("mark", value or NONE) if place in unusual else value or NONE)
        for place, value in enumerate(values)
    ]
    return element("tr", name_column("", element("code", option)), *cells)


def _cards(config: Mapping[str, str]) -> Markup:
    groups: dict[str, dict[str, str]] = {name: {} for name in _SECTIONS}
    for option, value in config.items():
        group, _, rest = option.partition(".")
        if rest and group in groups:
            groups[group][rest] = value
        else:
            groups[""][option] = value
    return element("div", lines(["", *_filled(groups), ""]), class_="cards")


def _filled(groups: Mapping[str, Mapping[str, str]]) -> Iterator[Markup]:
    for name, options in groups.items():
        given = {option: value for option, value in options.items() if value != _UNSET}
        unset = [option for option, value in options.items() if value == _UNSET]
        told = element("p", f"null: {', '.join(unset)}", class_="muted") if unset else ""
        if options:
            yield facts_card(_SECTIONS[name], given, told)


def _again(run: Run, name: RunName) -> Markup:
    if run.command is None:
        return Markup("")
    what = "The same run again: " if name.alone else fragment(name.badge, " again: ")
    return element("p", what, element("code", run.command), class_="again")


# ---------------------------------------------------------------------- environment


def environment(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    """What the figures depend on beside the options: data, machine, versions; and the time."""
    known = [(run, name) for run, name in zip(runs, names, strict=True) if run.facts]
    if len(known) == 1:
        [(run, _)] = known
        cards = [facts_card(title, run.facts[group]) for group, title in _GROUPS.items() if group in run.facts]
        return section("environment", "Data and environment", element("div", lines(["", *cards, ""]), class_="cards"))
    rows: list[Markup] = []
    for group, title in _GROUPS.items():
        by_run = [run.facts.get(group, {}) for run, _ in known]
        facts = dict.fromkeys(fact for facts in by_run for fact in facts)
        if facts:
            rows.append(element("tr", element("th", title, scope="rowgroup", colspan=len(known) + 1), class_="group"))
        others = set(differing(by_run))
        for fact in facts:
            values = [facts.get(fact, NONE) for facts in by_run]
            cells = [element("td", value) for value in values]
            differs = fact in others
            mark = element("span", " ≠", class_="differs", aria_label=", differs") if differs else ""
            rows.append(element("tr", name_column(fact, mark), *cells))
    head = ["", *(str(name) for _, name in known)]
    if not rows:
        return Markup("")
    return section(
        "environment", "Data and environment", table("Facts; those that differ have a ≠ behind their name", head, rows)
    )


def notes(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    """What is missing or damaged."""
    told: list[str] = []
    for run, name in zip(runs, names, strict=True):
        for line in (*run.notes, *run.problems):
            told.append(line if name.alone else fragment(name.badge, ": ", line))
    return note(*told)
