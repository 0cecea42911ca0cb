"""``SCOREBOARD.md``: the board as a page, made of ``scoreboard.json`` alone."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.over_seeds import SECONDS, MeanClaim, Spread
from experiments.scoreboard import words
from experiments.scoreboard.board import Board
from experiments.scoreboard.row import Row

_HEAD = """\
# Scoreboard

Made by `python -m experiments.scoreboard`: runs of `python -m experiments.NAME --tracking csv --seed_everything SEED`
with the default options, each in a process of its own. Figures are mean ± standard deviation over the seeds, of
checkpoints chosen on validation data or at the end. Seconds are those of a whole run: imports, training, validation,
checkpoints, test and figures. `python -m experiments.scoreboard --only NAME` measures one row anew;
[scoreboard.json](scoreboard.json) holds every figure of every seed.
"""
_PUBLISHED = """\
## Held against published figures

Errors on the 10,000 test images of MNIST. Published ones are from the table on the MNIST database's page and the papers
named, for the architecture that is named with them. *Ahead by* is in percentage points.
"""
_LIMITS = """\
## Held against known limits

The data are made, and the best that anyone can do on them is known: the variance of the noise, or the accuracy of the
true class densities. *Beyond it* is by how much the figure is worse; on a finite test it may be better.
"""
_OTHERS = """\
## Without a published figure or a limit
"""
_RIGHT = ("parameters", "published", "ours", "ahead by", "limit", "beyond it", "must be", "seconds", "seeds")
_SPACE = "\N{NO-BREAK SPACE}"
_SHORT = 30  # characters that stay in one line, so that lines of neighbouring cells are level

Cells = Callable[[MeanClaim], Sequence[str]]


def page(board: Board) -> str:
    """The page as Markdown."""
    settings = _settings(board)
    groups: dict[str, list[Row]] = {_PUBLISHED: [], _LIMITS: [], _OTHERS: []}
    for row in board.rows.values():
        groups[_group(row)].append(row)
    # The order of the papers: from the largest published error to the least.
    groups[_PUBLISHED].sort(key=_published_accuracy)
    tables = [
        (_PUBLISHED, ("published", "of", "ours", "ahead by", "must be"), _published_cells),
        (_LIMITS, ("figure", "ours", "limit", "which is", "beyond it", "must be"), _limit_cells),
        (_OTHERS, ("figure", "ours", "must be"), _other_cells),
    ]
    parts = [_HEAD, _settings_text(settings)]
    for heading, columns, cells in tables:
        if groups[heading]:
            parts.append(f"{heading}\n{_table(groups[heading], columns, cells, settings)}")
    return "\n".join(parts)


def _group(row: Row) -> str:
    first = next(iter(row.board_claims), None)
    if first is None or first.limit is None:
        return _OTHERS
    return _PUBLISHED if words.published(first.source) else _LIMITS


def _published_accuracy(row: Row) -> float:
    limit = row.board_claims[0].limit
    return 0.0 if limit is None else limit.mean


# ------------------------------------------------------------------ tables


def _table(rows: Sequence[Row], columns: Sequence[str], cells: Cells, settings: Sequence[Mapping[str, Any]]) -> str:
    several = len(settings) > 1
    titles = ["experiment", "parameters", *columns, "seconds", "seeds", "measured"]
    lines = [titles, ["---:" if title in _RIGHT else "---" for title in titles]]
    for row in rows:
        middle = _middle(row, len(columns), cells)
        parameters = "" if row.parameters is None else f"{row.parameters:,}"
        name = f"{_text(row.architecture)}<br>`{row.experiment}`"
        took = "" if row.seconds is None else _whole(words.mean_and_std(SECONDS, row.seconds).replace(" s", ""))
        measured = _measured(row, settings if several else ())
        lines.append([name, parameters, *middle, took, str(len(row.seeds)), measured])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _middle(row: Row, width: int, cells: Cells) -> list[str]:
    """The cells between, a line in them for each claim; what one has to know first stands before the figures."""
    if not row.seeds:
        return [f"**{_text('; '.join(row.remarks))}**", *[""] * (width - 1)]
    claims = row.board_claims or [_unclaimed(row)]
    columns = [list(column) for column in zip(*(cells(claim) for claim in claims), strict=True)]
    for column in columns:  # one figure held against two others is said once
        for line in range(len(column) - 1, 0, -1):
            if column[line] == column[line - 1] and claims[line].metric == claims[line - 1].metric:
                column[line] = ""
    filled = ["<br>".join(column) if any(column) else "" for column in columns]
    if row.remarks:
        filled[0] = f"**{_text('; '.join(row.remarks))}**<br>{filled[0]}"
    return filled


def _unclaimed(row: Row) -> MeanClaim:
    """The figure on the board where nothing is claimed, such as on other data."""
    return MeanClaim(row.metric, "max", row.figures[row.metric], float("nan"), None, "", 0)


def _published_cells(claim: MeanClaim) -> Sequence[str]:
    """In percent error, whatever the metric's sense."""
    known = words.published(claim.source)
    ours = _whole(words.mean_and_std(claim.metric, _as_error(claim, claim.value)))
    limit = claim.limit
    if limit is None or known is None or claim.distance is None:
        return "", _text(words.words(claim.metric)), ours, "", _must(claim)
    published = _whole(words.percent(_as_error(claim, limit).mean))
    return published, _text(f"{known[0]} ({known[1]})"), ours, _ahead(claim), _must(claim)


def _as_error(claim: MeanClaim, spread: Spread) -> Spread:
    return Spread(tuple(1.0 - value for value in spread.values)) if claim.mode == "max" else spread


def _ahead(claim: MeanClaim) -> str:
    assert claim.distance is not None
    points = round(-100 * claim.distance.mean, 2)
    if points < 0:
        return _whole(f"**behind by {-points:.2f}**")
    return f"{points:.2f}" if points else "level"


def _limit_cells(claim: MeanClaim) -> Sequence[str]:
    metric, limit, distance = claim.metric, claim.limit, claim.distance
    name, ours = _whole(_text(words.words(metric))), _whole(words.mean_and_std(metric, claim.value))
    if limit is None or distance is None:
        return name, ours, "-", "-", "-", _must(claim)
    known = words.value(metric, limit.mean) if words.is_share(metric) else f"{limit.mean:.4g}"
    source = _text(claim.source)
    beyond = words.mean_and_std(metric, distance).replace(" %", "")
    return name, ours, _whole(known), _whole(source) if len(source) <= _SHORT else source, _whole(beyond), _must(claim)


def _other_cells(claim: MeanClaim) -> Sequence[str]:
    name, ours = words.words(claim.metric), words.mean_and_std(claim.metric, claim.value)
    return _whole(_text(name)), _whole(ours), _must(claim)


def _must(claim: MeanClaim) -> str:
    """The bar, and whether it is reached; of a published figure as an error."""
    if claim.bar != claim.bar:
        return ""
    as_error = words.published(claim.source) is not None and claim.mode == "max"
    bar = words.percent(1.0 - claim.bar) if as_error else words.value(claim.metric, claim.bar)
    sign = "≤" if as_error or claim.mode == "min" else "≥"
    return _whole(f"{sign} {bar} ✓" if claim.reached else f"**{sign} {bar} ✗**")


def _whole(text: str) -> str:
    """Text that is not broken into lines."""
    return text.replace(" ", _SPACE)


# ------------------------------------------------------------------ where and when


def _measured(row: Row, settings: Sequence[Mapping[str, Any]]) -> str:
    if not row.seeds:
        return ""
    held = row.circumstances
    commit = f"`{_text(held['commit'][:7])}`" if held["commit"] else "no revision"
    where = f" ({settings.index(_setting(row)) + 1})" if settings else ""
    date = _text(held["date"][:10]).replace("-", "\N{NON-BREAKING HYPHEN}")
    return f"{date}<br>{commit}{'' if held['clean'] else ' changed'}{where}"


def _setting(row: Row) -> dict[str, Any]:
    held = row.circumstances
    return {"machine": held["machine"], "device": held["device"], "versions": held["versions"]}


def _settings(board: Board) -> list[dict[str, Any]]:
    """The machines and versions of the rows, each once."""
    found: list[dict[str, Any]] = []
    for row in board.rows.values():
        if row.seeds and _setting(row) not in found:
            found.append(_setting(row))
    return found


def _settings_text(settings: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"**Machine:** {_setting_text(setting)}." for setting in settings]
    if len(lines) > 1:
        lines = [line.replace("Machine:", f"Machine ({number}):", 1) for number, line in enumerate(lines, 1)]
    note = "A revision is *changed* where the checkout had changes that were not committed.\n"
    return "\n\n".join([*lines, note])


def _setting_text(setting: Mapping[str, Any]) -> str:
    machine = setting["machine"]
    parts = [f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores', '?')} cores"]
    parts += [f"{machine['memory_gib']} GiB of memory"] if machine.get("memory_gib") else []
    parts += [f"GPU {machine['gpu']}" if machine.get("gpu") else "no GPU"]
    device = setting["device"].removeprefix(f"{machine.get('cpu')}, ")
    parts += [f"run on {device}"] if device else []
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    return _text(f"{', '.join(parts)}; {versions}")


def _text(text: str) -> str:
    """Text that is nothing but text in a table of Markdown."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)
