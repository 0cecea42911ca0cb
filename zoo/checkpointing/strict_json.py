"""JSON with one meaning: what other readers would understand differently, or not at all, is refused."""

from __future__ import annotations

import json
import math
from typing import Any

_LARGEST = 2**63 - 1
_DEEPEST = 64


class JSONError(ValueError):
    """Bytes that are no JSON with one meaning; says why."""


def parse_json(data: bytes) -> Any:
    """The value in UTF-8 encoded JSON (RFC 8259).

    Raises:
        JSONError: it is none; or a key stands twice in an object, a number is not finite or an integer of more than 64
            bits, a string holds half of a surrogate pair, or values are nested more than 64 deep.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_no_number,
        )
        _check_all(value)
        return value
    except JSONError:
        raise
    except RecursionError as error:
        raise JSONError("its values are nested too deeply") from error
    except UnicodeDecodeError as error:
        raise JSONError(f"it is not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise JSONError(f"it is not JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise JSONError(f"the key {key[:100]!r} stands twice in one object")
        result[key] = value
    return result


def _check_all(value: Any) -> None:
    """Look at every string, level by level, as recursion would have its own limit."""
    level = [value]
    for _ in range(_DEEPEST):
        if not level:
            return
        for item in level:
            if isinstance(item, str) and any("\ud800" <= character <= "\udfff" for character in item):
                raise JSONError(f"the string {item[:100]!a} is not Unicode")
        objects = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        level = [child for item in objects for pair in item.items() for child in pair]
        level += [child for item in lists for child in item]
    raise JSONError(f"its values are nested more than {_DEEPEST} deep")


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else None
    if value is None or abs(value) > _LARGEST:
        raise JSONError(f"the integer {digits[:30]} has more than 64 bits")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JSONError(f"the number {digits[:30]} is not finite")
    return value


def _no_number(name: str) -> None:
    raise JSONError(f"{name} is no number")
