"""What is searched: options of an experiment, each with a range or a list of choices."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from experiments.cli_errors import UsageError
from experiments.command_line import Experiment
from experiments.config_files import read_config_file

if TYPE_CHECKING:
    from optuna import Trial

Plain = bool | int | float | str | None

_KINDS = ("log", "uniform", "int", "logint")
_SYNTAX = "log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH, logint:LOW:HIGH, or choices such as 64,128,256"
_DIGITS = 4  # that a rate or a share is tried with: enough for any of them, and short on a command line
_LONGEST = 100  # choices


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Args:
        low: the least.
        high: the greatest.
        log: whether equal ratios are equally likely, rather than equal differences.
        integer: whether the numbers are whole.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def suggest(self, trial: Trial, option: str) -> str:
        """The value of an option in a trial, as on a command line; fractions to four digits."""
        if self.integer:
            return str(trial.suggest_int(option, int(self.low), int(self.high), log=self.log))
        return _text(float(f"{trial.suggest_float(option, self.low, self.high, log=self.log):.{_DIGITS}g}"))

    def examples(self) -> list[str]:
        """Both ends, as on a command line."""
        return [str(int(end)) if self.integer else _text(float(end)) for end in (self.low, self.high)]

    def __str__(self) -> str:
        kind = ("logint" if self.log else "int") if self.integer else ("log" if self.log else "uniform")
        return ":".join([kind, *self.examples()])


@dataclass(frozen=True)
class Choices:
    """Values without an order; those that are no number, text or truth value as JSON.

    Args:
        values: each once.
    """

    values: tuple[Plain, ...]

    def suggest(self, trial: Trial, option: str) -> str:
        """The value of an option in a trial, as on a command line."""
        return _text(trial.suggest_categorical(option, self.values))

    def examples(self) -> list[str]:
        """All of them, as on a command line."""
        return [_text(value) for value in self.values]

    def __str__(self) -> str:
        return ",".join(self.examples())


Space = Mapping[str, Range | Choices]
"""What is searched, by option without ``--``."""


def _text(value: Plain) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)


def parse_entry(option: str, value: Any) -> Range | Choices:
    """What a search space says of one option.

    Args:
        option: its name, for the errors.
        value: a text such as ``"log:1e-4:1e-1"`` or ``"64,128,256"``, or a list of choices.

    Raises:
        UsageError: it cannot be understood, or there is nothing to search.
    """
    if isinstance(value, str):
        kind, colon, rest = value.partition(":")
        if colon and kind.strip() in _KINDS:
            return _parse_range(option, value, kind.strip(), rest)
        try:
            value = yaml.safe_load(f"[{value}]")
        except (yaml.YAMLError, ValueError) as error:
            raise UsageError(f"{option}: {value!r} is none of {_SYNTAX}") from error
    if not isinstance(value, list):
        raise UsageError(f"{option}: {value!r} is none of {_SYNTAX}")
    return _parse_choices(option, value)


def _parse_range(option: str, text: str, kind: str, bounds: str) -> Range:
    integer, log = kind.endswith("int"), kind.startswith("log")
    try:
        low, high = (int(end) if integer else float(end) for end in bounds.split(":"))
    except ValueError:
        numbers = "two whole numbers" if integer else "two numbers"
        raise UsageError(f"{option}: {text!r} needs {numbers}, as in {kind}:LOW:HIGH") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{option}: {text!r} has an end that is not finite")
    if low >= high:
        raise UsageError(f"{option}: {text!r} is empty, the first number must be less than the second")
    if log and low <= 0:
        raise UsageError(f"{option}: {text!r} must begin above 0, where the logarithm does")
    return Range(low, high, log, integer)


def _parse_choices(option: str, values: Sequence[Any]) -> Choices:
    plain: list[Plain] = []
    for value in values:
        try:
            plain.append(_number(value) if isinstance(value, bool | int | float | str | None) else json.dumps(value))
        except TypeError:  # a date, or a set
            raise UsageError(f"{option}: {value!r} is no value of an option") from None
    if not 2 <= len(plain) <= _LONGEST:
        raise UsageError(f"{option}: a search needs 2 to {_LONGEST} choices, got {len(plain)}; it takes {_SYNTAX}")
    if len(set(map(_text, plain))) < len(plain):
        raise UsageError(f"{option}: a choice is there twice")
    return Choices(tuple(plain))


def _number(value: Plain) -> Plain:
    """A text such as ``1e-4`` as the number that it is everywhere but in YAML."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
            return number if math.isfinite(number) else value
    return value


def read_space(path: Path) -> dict[str, Range | Choices]:
    """A search space from a YAML file: ``option: log:1e-4:1e-1``, or ``option: [64, 128, 256]``, a line each.

    Raises:
        UsageError: it cannot be read, or says something that cannot be understood.
    """
    return {
        str(option).removeprefix("--"): parse_entry(f"{path}: {option}", value)
        for option, value in read_config_file(path).items()
    }


def default_space(experiment: Experiment, fixed: Sequence[str] = ()) -> dict[str, Range | Choices]:
    """What is searched where nobody says otherwise: the experiment's own rate, decay, warm-up, dropout and batch size.

    The learning rate goes a decade up and down from the experiment's, the batch size to half and double.

    Args:
        experiment: whose defaults are the middle.
        fixed: the command line of all trials; what it sets is not searched.
    """
    flat = _flatten(experiment.defaults)
    space: dict[str, Range | Choices] = {}
    for name in ("model.optimizer.lr", "model.lr"):
        if name in flat:
            rate = float(flat[name])
            space[name] = Range(float(f"{rate / 10:.3g}"), float(f"{rate * 10:.3g}"), log=True)
    if "model.optimizer.weight_decay" in flat:
        space["model.optimizer.weight_decay"] = Range(1e-6, 0.1, log=True)
    if "model.scheduler.warmup" in flat:
        space["model.scheduler.warmup"] = Range(0.05, 0.5)
    for name in ("model.dropout", "model.input_dropout"):
        if name in flat:
            space[name] = Range(0.0, 0.5)
    if (size := flat.get("data.batch_size")) is not None:
        space["data.batch_size"] = Choices((size // 2, size, size * 2))
    given = {arg.partition("=")[0].removeprefix("--") for arg in fixed if arg.startswith("--")}
    # The arguments of a class that somebody has chosen need not be those of the experiment's own.
    return {
        name: entry
        for name, entry in space.items()
        if not any(name == option or name.startswith(f"{option}.") for option in given)
    }


def _flatten(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults by option, with the arguments of classes as options of their own."""
    flat: dict[str, Any] = {}
    for name, value in defaults.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{argument}": inner for argument, inner in value.get("init_args", {}).items()})
        else:
            flat[name] = value
    return flat


def as_arguments(values: Mapping[str, str]) -> list[str]:
    """Options and their values as arguments of a command line."""
    return [f"--{option}={value}" for option, value in values.items()]


def probes(space: Space) -> list[list[str]]:
    """Command lines that between them have both ends of every range, and every choice, at least once."""
    examples = {option: entry.examples() for option, entry in space.items()}
    count = max((len(values) for values in examples.values()), default=0)
    return [
        as_arguments({option: values[min(number, len(values) - 1)] for option, values in examples.items()})
        for number in range(count)
    ]
