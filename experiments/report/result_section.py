"""The section on what came of the runs: metrics, the best of several, and what they are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from experiments.report.comparison import are_repetitions, best, mean_and_deviation, mode_of, same_data
from experiments.report.markup import Markup, element, lines
from experiments.report.parts import NONE, REACHED, SHORT, RunName, exact, figure_of, name_column, note, section, table
from experiments.report.result import HeldClaim
from experiments.report.runs import Run
from experiments.report.text import number

_BESIDE_METRICS = {
    "epochs": ("training", "epochs"),
    "parameters": ("training", "parameters"),
    "time": ("seconds", "total"),
}


def result(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    """The metrics, and what they are held against."""
    if all(run.result is None for run in runs):
        return Markup("")
    claims = [
        (claim, name)
        for run, name in zip(runs, names, strict=True)
        for claim in (() if run.result is None else run.result.claims)
    ]
    if len(runs) > 1:
        head = ["run", "metric", "verdict", "claimed", "value", "limit"]
        rows = [_claim_row(claim, name) for claim, name in claims]
        held = table("What the runs are held against", head, rows, numbers=[4])
        return section(
            "result", "Result", _metrics_of_all(runs, names), held if rows else _nothing_claimed("these runs")
        )
    cards = [_claim(claim) for claim, _ in claims]
    held = element("ul", lines(["", *cards, ""]), class_="claims") if cards else _nothing_claimed("this run")
    return section("result", "Result", element("div", held, _metrics(runs[0]), class_="beside"))


def _nothing_claimed(about: str) -> Markup:
    reason = "no claim of the experiment is about these data and options, or only a part of the test split was tested"
    return element("p", f"Nothing is claimed about {about}: {reason}.", class_="muted")


def _metrics(run: Run) -> Markup:
    rows = [element("tr", name_column(name), figure_of(value)) for name, value in run.metrics.items()]
    caption = "Metrics of the tested checkpoint, and of the validation that chose it"
    return table(caption, ["metric", "value"], rows, numbers=[1]) if rows else Markup("")


def _claim(claim: HeldClaim) -> Markup:
    limit = _against_limit(claim)
    return element(
        "li",
        _verdict(claim),
        element("span", claim.metric, class_="metric"),
        exact(claim.value, "value"),
        element("p", f"Claimed: {_needed(claim)} ", element("strong", number(claim.bar)), limit and f"; {limit}"),
        class_=_kind(claim),
    )


def _claim_row(claim: HeldClaim, name: RunName) -> Markup:
    return element(
        "tr",
        name_column("", name.badge),
        element("td", claim.metric),
        element("td", _verdict(claim), class_=_kind(claim)),
        element("td", f"{_needed(claim)} {number(claim.bar)}", class_="claimed"),
        figure_of(claim.value),
        element("td", _against_limit(claim) or NONE),
    )


def _verdict(claim: HeldClaim) -> Markup:
    mark, word = (REACHED, "reached") if claim.reached else (SHORT, "short of the claim")
    return element("span", element("span", mark, aria_hidden="true"), f" {word}", class_="verdict")


def _kind(claim: HeldClaim) -> str:
    return "reached" if claim.reached else "short"


def _needed(claim: HeldClaim) -> str:
    return "at least" if claim.mode == "max" else "at most"


def _against_limit(claim: HeldClaim) -> str:
    if claim.limit is None or not math.isfinite(claim.value):
        return ""
    distance = claim.value - claim.limit
    apart = f"{abs(distance):.2g} {'above' if distance > 0 else 'below'}" if distance else "exactly"
    return f"{apart} {number(claim.limit)}, {claim.source or 'the limit'}"


def _metrics_of_all(runs: Sequence[Run], names: Sequence[RunName]) -> Markup:
    comparable = same_data(runs)
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    columns = {metric: [run.metrics.get(metric) for run in runs] for metric in metrics}
    marked = {metric: best(values, mode_of(metric, runs)) for metric, values in columns.items() if comparable}
    about = {
        "experiment": [run.experiment or NONE for run in runs],
        "data": [NONE if run.result is None else run.result.dataset or NONE for run in runs],
    }
    same = [f"{what}: {values[0]}" for what, values in about.items() if len(set(values)) == 1]
    about = {what: values for what, values in about.items() if len(set(values)) > 1}
    beside = {
        title: [run.facts.get(group, {}).get(fact, NONE) for run in runs]
        for title, (group, fact) in _BESIDE_METRICS.items()
    }
    beside = {title: texts for title, texts in beside.items() if len(set(texts)) > 1}
    rows = []
    for place, name in enumerate(names):
        cells = [element("td", values[place]) for values in about.values()]
        for metric, values in columns.items():
            cells.append(figure_of(values[place], "best" if place in marked.get(metric, ()) else ""))
        cells += [element("td", texts[place], class_="number") for texts in beside.values()]
        rows.append(element("tr", name_column("", name.badge), *cells))
    caption = "; ".join(["Results, the best of each metric marked" if comparable else "Results", *same])
    head = ["run", *about, *columns, *beside]
    foot = _repeated(columns, len(runs), len(beside)) if are_repetitions(runs) else None
    warning = "The runs are on different data: their figures cannot be compared, and none is marked as the best."
    return lines(
        [
            Markup("") if comparable else note(warning),
            table(caption, head, rows, foot, numbers=range(1 + len(about), len(head))),
        ]
    )


def _repeated(columns: Mapping[str, Sequence[float | None]], count: int, beside: int) -> Markup:
    """The last row of runs that are the same but for their seed."""
    cells = []
    for values in columns.values():
        statistics = mean_and_deviation(values)
        text = NONE if statistics is None else f"{number(statistics[0])} ± {statistics[1]:.2g}"
        cells.append(element("td", text, class_="number"))
    label = element("th", f"mean ± sd of {count} seeds", scope="row")
    return element("tr", label, *cells, *[element("td")] * beside)
