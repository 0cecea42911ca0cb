"""The board's figures where they are quoted: in ``SCOREBOARD.md``, the README's table, and the experiments' docstrings.

The first line of a docstring is a sentence of its author's, in which the figures alone are replaced: what stands in per
cent, in seconds or minutes, with a decimal point or as a power of ten. ``Experiment.headline`` says which they are. The
paragraph that begins with ``Measured with``, and the README's table, are written as a whole.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.__main__ import list_experiments
from experiments.over_seeds import SECONDS, MeanClaim, Spread
from experiments.scoreboard import words
from experiments.scoreboard.about import LIMIT, About, about
from experiments.scoreboard.board import PAGE, Board
from experiments.scoreboard.circumstances import ROOT, without_words
from experiments.scoreboard.page import page
from experiments.scoreboard.row import Row
from zoo.checkpointing import write_whole

README = "README.md"
_BEGIN = "<!-- scoreboard: written by python -m experiments.scoreboard --write-figures -->\n"
_END = "<!-- end of the scoreboard -->\n"
_WIDTH = 120
_MEASURED = "Measured with "
_FIGURE = re.compile(
    r"(?<![\w.,-])(?:(?P<share>\d+(?:\.\d+)? %)|(?P<time>\d+(?:\.\d+)? (?P<unit>s|min|minutes)\b)"
    r"|(?P<power>\d(?:\.\d+)?e-?\d+)|(?P<plain>\d+\.\d+))"
)


class QuotationError(RuntimeError):
    """Figures that cannot be written where they belong, in a sentence."""


@dataclass(frozen=True)
class Quotation:
    """A file with the board's figures in it.

    Args:
        path: of the file.
        before: what is in it.
        after: what should be.
    """

    path: Path
    before: str
    after: str


def write_quotations(board: Board, root: Path = ROOT) -> list[Path]:
    """Write the figures wherever they are quoted, and return the files that were not as they should be.

    Raises:
        QuotationError: see :func:`quotations`; nothing was written.
        CheckpointError: a file cannot be written.
    """
    changed = [quotation for quotation in quotations(board, root) if quotation.before != quotation.after]
    for quotation in changed:
        write_whole(quotation.after.encode(), quotation.path)
    return [quotation.path for quotation in changed]


def quotations(board: Board, root: Path = ROOT) -> list[Quotation]:
    """The README, the board as a page, and the module of every experiment that the board has a row of.

    Raises:
        QuotationError: a row is not complete, or on other data than its claims are about; a sentence has no place for
            the figures; or this is no checkout.
    """
    names = list_experiments()
    known = [about(name, first_line) for name, first_line in names.items()]
    rows = board.of(names).rows
    if not rows:
        raise QuotationError("there is no scoreboard.json with figures to write: give --output")
    for row in rows.values():
        if not row.is_quotable:
            raise QuotationError(f"the figures of {row.experiment} are not to be told: {'; '.join(row.remarks)}")
    path = root / PAGE
    made = [_readme(root / README, known, rows)]
    made.append(Quotation(path, _read(path) if path.exists() else "", page(board.of(names))))
    for one in known:
        if one.name in rows:
            path = root / "experiments" / f"{one.name}.py"
            text = _read(path)
            made.append(Quotation(path, text, with_figures(text, one, rows[one.name])))
    return made


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QuotationError(f"{path} cannot be read; figures are written into a checkout alone") from error


# ------------------------------------------------------------------ a docstring


def with_figures(source: str, one: About, row: Row) -> str:
    """The source of an experiment, its docstring with the figures of the row.

    Raises:
        QuotationError: there is no place for them.
    """
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree, clean=False)
    if docstring is None or source.count(docstring) != 1 or not source.startswith(f'"""{docstring}"""'):
        raise QuotationError(f'{one.name} does not begin with a docstring in """ that is as it stands there')
    first_line, _, rest = docstring.strip().partition("\n")
    paragraphs = [part for part in re.split(r"\n{2,}", rest.strip()) if part]
    measured = _wrapped(_measured(one, row))
    places = [number for number, part in enumerate(paragraphs) if part.startswith(_MEASURED)]
    if places:
        paragraphs[places[0]] = measured
    else:
        paragraphs.append(measured)
    text = "\n\n".join([_headline(first_line, one, row), *paragraphs])
    changed = f'"""{text}\n"""{source[len(docstring) + 6 :]}'
    if ast.dump(without_words(ast.parse(changed))) != ast.dump(without_words(tree)):
        raise QuotationError(f"the docstring of {one.name} cannot be written without changing its code")
    return changed


def _wrapped(text: str) -> str:
    """The text in lines, no number alone."""
    whole = re.sub(r" (?=[%±]|\+-|s\b|in all)|(?<=[±]) |(?<=\+-) ", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(whole, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _headline(line: str, one: About, row: Row) -> str:
    """The sentence with its figures replaced, one after the other."""
    found = list(_FIGURE.finditer(line))
    if len(found) != len(one.headline):
        there = ", ".join(match[0] for match in found) or "none"
        raise QuotationError(
            f"the first line of {one.name} has the figures {there}; its headline are {', '.join(one.headline)}"
        )
    pieces, at = [], 0
    for match, name in zip(found, one.headline, strict=True):
        pieces += [line[at : match.start()], _quoted(match, name, one, row)]
        at = match.end()
    text = "".join([*pieces, line[at:]])
    if len(text) + 3 > _WIDTH:
        raise QuotationError(f"the first line of {one.name} is longer than {_WIDTH} characters: {text}")
    return text


def _quoted(match: re.Match[str], name: str, one: About, row: Row) -> str:
    metric, spread = _figure(name, one, row)
    if match["time"] is not None and name == SECONDS:
        in_minutes = f"{spread.mean / 60:.0f} {match['unit']}"
        return words.seconds(spread.mean) if match["unit"] == "s" else in_minutes
    if match["share"] is not None and words.is_share(metric):
        return words.mean(metric, spread)
    if match["power"] is not None and not words.is_share(metric):
        return words.at_most(max(spread.values))
    if match["plain"] is not None and not words.is_share(metric) and name != SECONDS:
        return f"{spread.mean:.4g}" if name == LIMIT else words.mean(metric, spread)
    raise QuotationError(f"the first line of {one.name} has {match[0]} in the place of {name}")


def _figure(name: str, one: About, row: Row) -> tuple[str, Spread]:
    if name == LIMIT:
        limits = [claim.limit for claim in row.board_claims[:1] if claim.limit is not None]
        if not limits:
            raise QuotationError(f"the first claim of {one.name} has no limit to tell")
        return one.metric, limits[0]
    if name not in row.figures:
        raise QuotationError(f"the board has no {name} of {one.name}; it has {', '.join(row.figures)}")
    return name, row.figures[name]


def _measured(one: About, row: Row) -> str:
    """The paragraph of the measurement."""
    command = f"``python -m experiments.scoreboard --only {row.experiment}``"
    data = ", real MNIST" if row.dataset.startswith("MNIST") else ""
    figures = list(dict.fromkeys(_in_full(claim) for claim in row.board_claims))  # of two claims on one figure once
    for name, told in _reported(one, row).items():
        figures.append(f"{told} {words.mean_and_std(name, row.figures[name], '+-')}")
    took = words.mean_and_std(SECONDS, row.figures[SECONDS], "+-")
    text = f"{_MEASURED}{command}, {_seeds(row)}{data}: {', '.join(figures)}; {took} in all; {_where(row)}."
    for claim in row.board_claims:
        if (known := words.published(claim.source)) and claim.limit is not None:
            text += f" Published for {known[0]}: {words.percent(claim.limit.mean)} ({known[1]})."
    return text


def _in_full(claim: MeanClaim) -> str:
    metric = claim.metric
    text = f"{words.words(metric)} {words.mean_and_std(metric, claim.value, '+-')}"
    if claim.value.std > 0.0:
        worst = min(claim.value.values) if claim.mode == "max" else max(claim.value.values)
        text += f" ({'lowest' if claim.mode == 'max' else 'highest'} {words.value(metric, worst).removesuffix(' %')})"
    if claim.limit is None or claim.distance is None or words.published(claim.source):
        return text
    if not words.is_share(metric) and min(claim.limit.values) > 0.0:
        pairs = zip(claim.value.values, claim.limit.values, strict=True)
        ratio = Spread(tuple(value / limit for value, limit in pairs)).mean
        return f"{text}, {ratio:.3f} times {claim.source}"
    if not any(claim.distance.values):
        return f"{text}, {claim.source}"
    short = claim.distance.mean >= 0.0
    side = "below" if short == (claim.mode == "max") else "above"
    gap = claim.distance if short else Spread(tuple(-value for value in claim.distance.values))
    points = words.mean_and_std("accuracy", gap, "+-").replace(" %", "")
    return f"{text}, {points} percentage points {side} {claim.source}"


def _reported(one: About, row: Row) -> dict[str, str]:
    """Further figures to tell, in words."""
    claimed = {claim.metric for claim in row.claims}
    return {name: told for name, told in one.reported.items() if name in row.figures and name not in claimed}


def _seeds(row: Row) -> str:
    return f"seeds {row.seeds[0]} to {row.seeds[-1]}" if len(row.seeds) > 1 else f"seed {row.seeds[0]}"


def _where(row: Row) -> str:
    held = row.circumstances
    versions = [f"{name} {_public(held['versions'].get(name))}" for name in ("torch", "lightning")]
    precision = ", bfloat16" if str(held["precision"]).startswith("bf16") else ""
    python = f"Python {_public(held['versions'].get('python'))}"
    return f"{_plain(held['device'])}; {', '.join([*versions, python])}{precision}"


def _public(version: object) -> str:
    return str(version).partition("+")[0]


def _plain(device: str) -> str:
    return " ".join(re.sub(r"\((?:R|TM)\)", "", device).split())


# ------------------------------------------------------------------ the README


def _readme(path: Path, known: list[About], rows: Mapping[str, Row]) -> Quotation:
    text = _read(path)
    before, begin, rest = text.partition(_BEGIN)
    inside, end, behind = rest.partition(_END)
    if not begin or not end:
        raise QuotationError(
            f"{path} has no place for the table: a line {_BEGIN.strip()} and, behind it, {_END.strip()}"
        )
    lines = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", inside, re.MULTILINE)}
    table = [_introduction(rows), "", "| experiment | what | figures | published, or the limit | seconds |"]
    table.append("| --- | --- | --- | --- | ---: |")
    for one in known:
        unmeasured = lines.get(one.name, f"| `{one.name}` | {one.what} | not measured yet: 0 seeds | | |")
        table.append(_line(one, rows[one.name]) if one.name in rows else unmeasured)
    written = "\n".join(table)
    return Quotation(path, text, f"{before}{begin}{written}\n{end}{behind}")


def _introduction(rows: Mapping[str, Row]) -> str:
    places = list(dict.fromkeys(_where(row).removesuffix(", bfloat16") for row in rows.values()))
    where = f", on {places[0]}" if len(places) == 1 else ""
    text = (
        "Mean ± standard deviation over the seeds (five, where no other number is said); seconds in all, start-up, "
        f"test and figures included{where}. More, and how it was measured, on the [scoreboard]({PAGE})."
    )
    return _wrapped(text)


def _line(one: About, row: Row) -> str:
    names = {**{claim.metric: words.words(claim.metric) for claim in row.board_claims}, **_reported(one, row)}
    figures = [f"{told} {words.mean_and_std(name, row.figures[name])}" for name, told in names.items()]
    seeds = "" if len(row.seeds) == 5 else f" ({len(row.seeds)} seeds)"
    held = "; ".join(_limit(claim) for claim in row.board_claims if claim.limit is not None)
    took = words.mean_and_std(SECONDS, row.figures[SECONDS])
    return f"| `{one.name}` | {one.what} | {'; '.join(figures)}{seeds} | {held} | {took} |"


def _limit(claim: MeanClaim) -> str:
    assert claim.limit is not None
    known = words.published(claim.source)
    if known is not None:
        return f"{words.percent(claim.limit.mean)} for {known[0]} ({known[1]})"
    share = words.is_share(claim.metric)
    limit = words.value(claim.metric, claim.limit.mean) if share else f"{claim.limit.mean:.4g}"
    return f"{limit}, {claim.source}"
