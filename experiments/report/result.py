"""What ``summary.json`` says, taken to be by somebody else: what is not as a run writes it is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.atomic import read_bounded
from experiments.report.text import duration, limited

_LARGEST = 4 * 1024 * 1024
_DEEPEST, _MOST_ITEMS = 20, 1000
_SHOWN_ELSEWHERE = ("experiment", "claims", "limit", "distance_to_limit", "examined", "figures", "doctor")


class ResultError(ValueError):
    """A file that is no summary of a run, in a sentence."""


@dataclass(frozen=True)
class HeldClaim:
    """A figure that the run was held against, see :class:`experiments.claims.Claim`.

    Args:
        metric: its name.
        value: what the run came to.
        bar: what it had to reach.
        mode: whether more or less of it is better.
        reached: whether it did.
        limit: the best possible or the published figure, if there is one.
        source: what the limit is, in words.
    """

    metric: str
    value: float
    bar: float
    mode: Literal["min", "max"]
    reached: bool
    limit: float | None
    source: str


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Args:
        experiment: its name, if it is there.
        dataset: the data really used, if that is there.
        metrics: of the test, then what the experiment examined, then the others; NaN where there was no finite number.
        claims: what it was held against.
        steps: optimizer steps, if they are there.
        findings: what looked wrong in the training, a line each, see :class:`zoo.doctor.Finding`.
        facts: everything else as text, by the group it is shown in, and by name.
    """

    experiment: str | None
    dataset: str | None
    metrics: Mapping[str, float]
    claims: Sequence[HeldClaim]
    steps: int | None
    findings: Sequence[str]
    facts: Mapping[str, Mapping[str, str]]


def read_result(path: Path) -> Result:
    """Read ``summary.json``.

    Raises:
        OSError: it cannot be read, or is larger than 4 MiB.
        ResultError: it is no summary.
    """
    contents = read_bounded(path, _LARGEST)
    try:
        summary = json.loads(contents)
        if isinstance(summary, dict):
            return _result(summary)
    except (ValueError, RecursionError) as error:  # RecursionError: lists of lists of lists
        raise ResultError(f"it is no JSON ({' '.join(str(error).split())})") from error
    raise ResultError("it holds no figures by name")


def _result(summary: Mapping[str, Any]) -> Result:
    examined = _mapping(summary.get("examined"))
    named = {name: value for name, value in summary.items() if "/" in name and _is_figure(value)}
    tested = {name: value for name, value in named.items() if name.startswith("test/")}
    examined = {name: value for name, value in examined.items() if _is_figure(value)}
    steps = summary.get("steps")
    return Result(
        experiment=_text(summary.get("experiment")),
        dataset=_text(summary.get("dataset")),
        metrics={name: _float(value) for name, value in {**tested, **examined, **named}.items()},
        claims=[claim for claim in map(_claim, _sequence(summary.get("claims"))) if claim is not None],
        steps=steps if isinstance(steps, int) and not isinstance(steps, bool) else None,
        findings=[line for line in map(_finding, _sequence(summary.get("doctor"))[:_MOST_ITEMS]) if line is not None],
        facts=_facts({name: value for name, value in summary.items() if name not in named}),
    )


def _facts(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    rest = dict(summary)
    for name in _SHOWN_ELSEWHERE:
        rest.pop(name, None)
    samples = dict(_flat(rest.pop("samples", None)))
    seconds = {name: value for name, value in _mapping(rest.pop("seconds", None)).items() if _is_figure(value)}
    versions = dict(_flat(rest.pop("versions", None)))

    def take(*names: str) -> dict[str, str]:
        return {name: shown(rest.pop(name)) for name in names if rest.get(name) is not None}

    groups = {
        "data": {**take("dataset"), **{f"{split} samples": shown(value) for split, value in samples.items()}},
        "training": take("seed", "epochs", "steps", "parameters", "checkpoint"),
        "seconds": {name: duration(_float(value)) for name, value in seconds.items()},
        "environment": take("device", "precision"),
        "versions": {name: shown(value) for name, value in versions.items()},
        "other": {name: shown(value) for name, value in _flat(rest) if value is not None},
    }
    return {group: facts for group, facts in groups.items() if facts}


def shown(value: Any) -> str:
    """A plain value as text: whole numbers of a thousand and more with separators, lists without brackets."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and abs(value) < 10**18:
        return f"{value:,}"
    if isinstance(value, list):
        return limited(", ".join(map(shown, value[:_MOST_ITEMS])))
    return limited(str(value))


def _flat(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and depth < _DEEPEST:
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    elif prefix:
        yield prefix, value


def _claim(held: Any) -> HeldClaim | None:
    held = _mapping(held)
    metric, bar, limit = held.get("metric"), held.get("bar"), held.get("limit")
    if not isinstance(metric, str) or not _is_number(bar) or not isinstance(held.get("reached"), bool):
        return None
    return HeldClaim(
        metric=metric,
        value=_float(held.get("value")),
        bar=_float(bar),
        mode="min" if held.get("mode") == "min" else "max",
        reached=held["reached"],
        limit=_float(limit) if _is_number(limit) else None,
        source=_text(held.get("source")) or "",
    )


def _finding(found: Any) -> str | None:
    evidence, remedy = (_text(_mapping(found).get(part)) for part in ("evidence", "remedy"))
    return None if evidence is None or remedy is None else limited(f"{evidence}: {remedy}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_figure(value: Any) -> bool:
    """A number, or the ``null`` that stands for one that is not finite."""
    return value is None or _is_number(value)


def _float(value: Any) -> float:
    try:
        return float(value) if _is_number(value) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
