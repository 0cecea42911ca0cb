"""The page: one file of HTML that needs no other, no network and no script."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence

from experiments.report import result_section, sections
from experiments.report.comparison import labels, mode_of
from experiments.report.markup import Markup, breakable, element, fragment, lines
from experiments.report.parts import REACHED, SHORT, RunName, exact
from experiments.report.runs import Run
from zoo.version import __version__

_ORDER = {
    "result": result_section.result,
    "history": sections.history,
    "figures": sections.figures,
    "configuration": sections.configuration,
    "environment": sections.environment,
}
_TITLES = {
    "result": "Result",
    "history": "Learning history",
    "figures": "Figures",
    "configuration": "Configuration",
    "environment": "Data and environment",
}
_MOST_TILES = 4
_FIRST_TILES = ("accuracy", "mse", "cer", "loss")


def render(runs: Sequence[Run], title: str | None = None) -> str:
    """The page about a run, or about several side by side.

    Args:
        runs: at least one.
        title: the heading; ``None`` names the experiment.
    """
    names = [
        RunName(place, label, len(runs) == 1) for place, label in enumerate(labels([run.directory for run in runs]), 1)
    ]
    heading = title or _heading(runs)
    body = {anchor: section(runs, names) for anchor, section in _ORDER.items()}
    links = [element("li", element("a", _TITLES[anchor], href=f"#{anchor}")) for anchor, html in body.items() if html]
    content = [sections.notes(runs, names), *body.values()]
    page = element(
        "html",
        _head(heading),
        element(
            "body",
            lines(
                [
                    "",
                    element("a", "Skip to the content", href="#content", class_="skip"),
                    _header(runs, names, heading),
                    element("nav", element("ul", *links), aria_label="Contents") if links else "",
                    element("main", lines(["", *content, ""]), id="content"),
                    element("footer", f"Written by python -m experiments.report, version {__version__}."),
                    "",
                ]
            ),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(title: str) -> Markup:
    style = importlib.resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Whatever a value on the page might be: nothing is loaded, nothing is run, and this is the only style.
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        lines(
            [
                "",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=policy),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("title", title),
                element("style", Markup(style)),
                "",
            ]
        ),
    )


def _heading(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return runs[0].experiment or runs[0].directory.absolute().name
    experiments = {run.experiment for run in runs}
    if None in experiments:
        return f"{len(runs)} runs"
    return f"{len(runs)} runs of {experiments.pop() if len(experiments) == 1 else f'{len(experiments)} experiments'}"


def _header(runs: Sequence[Run], names: Sequence[RunName], heading: str) -> Markup:
    children: list[str] = ["", element("p", "Run report" if len(runs) == 1 else "Comparison", class_="eyebrow")]
    children.append(element("h1", heading))
    if len(runs) == 1:
        children += [_about(runs[0], names[0]), _tiles(runs[0])]
    else:
        listed = []
        for run, name in zip(runs, names, strict=True):
            where = "" if str(run.directory) == name.label else str(run.directory)
            listed.append(element("li", name.badge, " ", _state(run), " ", element("span", where, class_="muted")))
        children.append(element("ol", lines(["", *listed, ""]), class_="runs"))
    return element("header", lines([*children, ""]))


def _about(run: Run, name: RunName) -> Markup:
    parts = [name.label]
    if run.result is not None and run.result.dataset is not None:
        parts.append(f"dataset {run.result.dataset}")
    if seed := run.facts.get("training", {}).get("seed"):
        parts.append(f"seed {seed}")
    return element("p", " · ".join(parts), " ", _state(run), class_="about")


def _state(run: Run) -> Markup:
    if run.result is None:
        return element("span", "no result", class_="chip short")
    claims = run.result.claims
    if not claims:
        return element("span", "finished", class_="chip")
    reached = sum(claim.reached for claim in claims)
    mark, kind = (REACHED, "reached") if reached == len(claims) else (SHORT, "short")
    text = (
        f" {reached} of {len(claims)} claims reached"
        if len(claims) > 1
        else f" claim {'' if reached else 'not '}reached"
    )
    return element("span", element("span", mark, aria_hidden="true"), text, class_=f"chip {kind}")


def _tiles(run: Run) -> Markup:
    """The few figures that one looks for first."""
    claimed = [] if run.result is None else [claim.metric for claim in run.result.claims]
    tested = [f"test/{name}" for name in _FIRST_TILES]
    metrics = [name for name in dict.fromkeys([*claimed, *tested]) if name in run.metrics][:2]
    tiles = [(name, exact(run.metrics[name]), _better(name, run)) for name in metrics]
    for group, fact, label in (("training", "parameters", "parameters"), ("seconds", "total", "time in all")):
        if fact in run.facts.get(group, {}):
            tiles.append((label, fragment(run.facts[group][fact]), ""))
    if not tiles:
        return Markup("")
    shown = [
        element("div", element("dt", breakable(name)), element("dd", value, element("small", hint) if hint else ""))
        for name, value, hint in tiles[:_MOST_TILES]
    ]
    return element("dl", lines(["", *shown, ""]), class_="tiles")


def _better(metric: str, run: Run) -> str:
    return {"max": "more is better", "min": "less is better", None: ""}[mode_of(metric, [run])]
