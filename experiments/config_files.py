"""Configuration files, which may come from somebody else.

A configuration chooses classes by name, and naming one imports its module: that of a run to resume would run code that
nobody on the command line has named. And a few lines of YAML can stand for billions of values.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.cli_errors import UsageError
from experiments.options import option_values, without

_OWN = ("torch.optim.", "lightning.pytorch.", "zoo.", "datamodules.")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(?:\.[^./\\\s]+)+")
_CLASS = "class_path"
# Where a text can name a class or a function, or a file that does.
_CLASS_PLACES = (("trainer",), ("model", "optimizer"), ("model", "scheduler"))
_SECTIONS = ("model", "data", "trainer")
_FILES = (".yaml", ".yml", ".json", ".jsonnet", ".toml")
_LARGEST, _MOST_VALUES, _DEEPEST = 2**16, 20_000, 30


def read_config_file(path: Path) -> dict[str, Any]:
    """The values in a configuration file, of which there are not more than one can go through.

    Raises:
        UsageError: it cannot be read, or is no configuration.
    """
    try:
        text = path.read_bytes()
        if len(text) > _LARGEST:
            raise UsageError(f"{path} is larger than any configuration: {len(text)} bytes")
        _check_extent(yaml.compose(text, yaml.SafeLoader), path)
        values = yaml.safe_load(text)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError, RecursionError) as error:
        # The YAML reader raises others than its own for dates that are none, or keys that cannot be hashed.
        reason = " ".join(str(getattr(error, "problem", None) or getattr(error, "strerror", None) or error).split())
        raise UsageError(f"{path} cannot be read as YAML: {reason[:200]}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no configuration: it holds no options by name")
    return values


def _check_extent(root: yaml.Node | None, path: Path) -> None:
    """Refuse a document that is longer than its text: by aliases of aliases, or by merging them into each other."""
    pending = [(root, 1)]
    for _ in range(_MOST_VALUES):
        if not pending:
            return
        node, depth = pending.pop()
        if depth > _DEEPEST:
            break
        if isinstance(node, yaml.MappingNode):
            pending += [(inner, depth + 1) for pair in node.value for inner in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += [(inner, depth + 1) for inner in node.value]
    raise UsageError(f"{path} has more values, or deeper ones, than any configuration")


def refuse_foreign_code(config: Path, args: Sequence[str]) -> None:
    """Refuse the configuration of a run to resume that names code which the command line does not.

    Args:
        config: the run's ``config.yaml``.
        args: the command line; what it names itself, or a configuration file given with ``--config``, is trusted.

    Raises:
        UsageError: names the code, or says what is wrong with the file.
    """
    values = read_config_file(config)
    # But for the name of the directory, which is as much somebody else's as what is in it.
    named = without(args, "--resume", "--run_dir")
    given = "\n".join([*named, *_contents(option_values(args, "--config", "-c"))])
    # A text in the place of a section is a file to be read there.
    names = [values[section] for section in _SECTIONS if isinstance(values.get(section), str)]
    names += [text for place, text in _texts_in(values) if _names_code(place, text)]
    for name in names:
        if not _is_own(name) and name not in given:
            raise UsageError(
                f"{config} names {name[:200]!r}, and code that is not this project's is only run if you say so: if you "
                f"trust it, add --config {config}"
            )


def _is_own(name: str) -> bool:
    """Whether a name is that of something in a module of ours, not of what such a module has imported itself."""
    if not name.startswith(_OWN) or not _IMPORT_PATH.fullmatch(name):
        return False
    try:
        return importlib.util.find_spec(name.rpartition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _contents(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        try:
            yield Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError):  # the parser says what is wrong with it
            continue


def _texts_in(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """All texts among values, each with the names of the options that it is in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts_in(inner, (*place, *str(key).split(".")))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner, place)
    elif isinstance(value, str):
        yield place, value


def _names_code(place: tuple[str, ...], text: str) -> bool:
    if place[-1] == _CLASS or _CLASS in text:  # the parser reads a text as YAML where it wants no text
        return True
    names_classes = any(place[: len(start)] == start for start in _CLASS_PLACES)
    return names_classes and bool(_IMPORT_PATH.fullmatch(text) or "://" in text or Path(text).suffix in _FILES)
