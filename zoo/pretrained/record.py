"""What is known of a model beside its weights: enough to make it again, and to say what it is worth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from zoo.pretrained.forms import (
    LONGEST_TEXT,
    PretrainedError,
    is_arguments,
    is_dict,
    is_name,
    is_number,
    is_numbers,
    is_text,
    require,
    shown,
    with_tuples,
)

OWN_MODULE = "zoo.models"
"""Where the ready models are."""

_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_MODULE_NAME = re.compile(r"(?=.{1,300}$)[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_SEED, _LARGEST_CHECKSUM = 2**32 - 1, 2**32 - 1

AnyRecord = TypeVar("AnyRecord", bound="ModelRecord")


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What is known of a model beside its weights.

    Args:
        class_name: the model's class.
        arguments: what to call it with: plain numbers, strings, booleans, ``None``, and tuples and dicts of these. What
            was a list comes back as a tuple.
        module: where the class is defined, for messages: nothing is imported by it.
        data: the data set it was trained on.
        data_class: of the data module.
        data_arguments: of the data module, those that say which samples these are and in which form.
        checksums: CRC-32 of the samples of each split, by name.
        mean: of the features it was trained on, one for all or one a channel, to standardise others with.
        std: of the same features; positive.
        metrics: as measured, by name.
        temperature: that divides the logits, see :mod:`zoo.calibration`; ``None`` where none was fitted.
        seed: of the run.
        command: that made the weights.
        versions: of the libraries they were made with, by name.
        sha256: of the file of weights, 64 lower-case hexadecimal digits.

    Raises:
        PretrainedError: a value is not of this form; names the field.
    """

    class_name: str
    arguments: dict[str, Any]
    module: str = OWN_MODULE
    data: str | None = None
    data_class: str | None = None
    data_arguments: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None
    seed: int | None = None
    command: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    sha256: str

    #: Fields that a kind of record must have, whatever their defaults.
    required: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require(is_name(self.class_name, _CLASS_NAME), "class_name", "the name of a class", self.class_name)
        require(is_name(self.module, _MODULE_NAME), "module", "the name of a module", self.module)
        plain = "plain values by the names of arguments"
        for name in ("arguments", "data_arguments"):
            require(is_arguments(getattr(self, name)), name, plain, getattr(self, name))
        for name in ("data", "command"):
            self._require(name, is_text, f"a line of at most {LONGEST_TEXT} characters")
        self._require("data_class", lambda value: is_name(value, _CLASS_NAME), "the name of a class")
        self._check_numbers()
        self._require("seed", lambda value: _is_whole(value, _LARGEST_SEED), f"an integer from 0 to {_LARGEST_SEED}")
        require(is_dict(self.versions, is_text), "versions", "strings by name", self.versions)
        require(is_name(self.sha256, _SHA256), "sha256", "64 lower-case hexadecimal digits", self.sha256)

    def _check_numbers(self) -> None:
        for name in ("mean", "std"):
            self._require(name, is_numbers, "a list of finite numbers")
        if self.std is not None:
            require(min(self.std) > 0, "std", "positive", self.std)
        length = None if self.mean is None else len(self.mean)
        require(length == (None if self.std is None else len(self.std)), "std", "as long as mean", self.std)
        require(is_dict(self.metrics, is_number), "metrics", "finite numbers by name", self.metrics)
        are_sums = is_dict(self.checksums, lambda value: _is_whole(value, _LARGEST_CHECKSUM))
        require(are_sums, "checksums", "32-bit integers by name", self.checksums)
        positive = self.temperature is None or (is_number(self.temperature) and self.temperature > 0)
        require(positive, "temperature", "a positive number", self.temperature)

    def _require(self, name: str, has_form: Any, form: str) -> None:
        value = getattr(self, name)
        require(has_form(value) or (value is None and name not in self.required), name, form, value)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; what is not known is left out."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name in self.required or not _is_default(each, getattr(self, each.name))
        }

    @classmethod
    def from_json(cls: type[AnyRecord], values: Any) -> AnyRecord:
        """The record in values of a JSON file.

        Raises:
            PretrainedError: they have not this form.
        """
        known = [each.name for each in fields(cls)]
        optional = {each.name for each in fields(cls) if _has_default(each) and each.name not in cls.required}
        must = [name for name in known if name not in optional]
        if not isinstance(values, dict) or not set(must) <= values.keys() <= set(known):
            told = shown(list(values) if isinstance(values, dict) else values)
            may = ", ".join(name for name in known if name in optional)
            raise PretrainedError(f"it must have exactly the keys {', '.join(must)}, and may have {may}; got {told}")
        return cls(**{name: with_tuples(value) for name, value in values.items()})


def plain_arguments(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as a record keeps them, with tuples for lists.

    Raises:
        PretrainedError: one is no plain, finite value; names it.
    """
    arguments: dict[str, Any] = {name: with_tuples(value) for name, value in hyperparameters.items()}
    for name, value in arguments.items():
        require(is_arguments({name: value}), f"argument {name}", "a plain, finite value to be written down", value)
    return arguments


def _is_whole(value: Any, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def _has_default(each: Field[Any]) -> bool:
    return each.default is not MISSING or each.default_factory is not MISSING


def _is_default(each: Field[Any], value: Any) -> bool:
    if each.default_factory is not MISSING:
        return bool(value == each.default_factory())
    return each.default is not MISSING and bool(value == each.default)
