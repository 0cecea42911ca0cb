"""One line for what is wrong on a command line: what it is, and the nearest thing that is right."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from experiments.terminal import one_line

_LONGEST, _TAIL = 1000, 200


class UsageError(Exception):
    """A command line that cannot be used, in one line; of what is too long to be read, the middle is left out."""

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST - _TAIL]} … {message[-_TAIL:]}"
        super().__init__(message)


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Turn a :class:`UsageError` into one line on stderr and exit code 2."""
    try:
        yield
    except UsageError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from error


class OneLineParser(argparse.ArgumentParser):
    """Answers as the experiments themselves do."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base's, which speaks of what is missing before it speaks of what is misspelt."""
        given = sys.argv[1:] if args is None else args
        known = [option for action in self._actions for option in action.option_strings]
        for option in (arg.partition("=")[0] for arg in itertools.takewhile(lambda arg: arg != "--", given)):
            if option.startswith("--") and option not in known:
                self.error(_unknown_option(option, known))
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """One line, and exit code 2."""
        self.exit(2, f"error: {one_line(message)}\n")


class CompileError(UsageError):
    """What ``torch.compile`` cannot do with the network on this machine: found out only when the first batch comes."""


_CLASS_PLACES = {
    "optimizer": ("torch.optim",),
    "scheduler": ("zoo.optim", "torch.optim.lr_scheduler"),
}


def explain(message: str, options: Iterable[str]) -> str:
    """The parser's message, which may run over many lines, as one line.

    Args:
        message: what the parser said.
        options: the valid options, such as ``"--data.batch_size"``.
    """
    known = list(options)
    if found := re.search(r"[Uu]nrecognized arguments: (.*)", message, re.DOTALL):
        return _unknown_option(found[1].split()[0].partition("=")[0], known)
    if found := re.search(r"(?:Key|Group) '([^']*)' (?:does not accept|is not expected).*?(?:'([^']*)')?$", message):
        return _unknown_option("--" + ".".join(part for part in found.groups() if part), known)
    if found := re.search(r'Linked "([^"]*)" must be given via "([^"]*)"', message):
        return f"--{found[1]} takes its value from --{found[2]}: give that instead"
    key = _first(r'Parser key "([^"]*)"', message)
    if key is None and (name := _first(r"Option '([^']*)' is not accepted", message)):
        return _unknown_option(f"--{name}", known)
    if key is None:
        return " ".join(message.split())
    option = f"--{key}"
    if name := _first(r"Option '([^']*)' is not accepted", message):
        owner = _first(r"class_path='([^']*)'", message) or option
        return f"unknown option {option}.{name}: {owner} takes no {name!r}{_nearest(name, _arguments_of(owner))}"
    if found := re.search(r"NestedArg\(key='([^']*)', val='([^']*)'\)", message):
        types = list(dict.fromkeys(re.findall(r"Expected an? <class '([^']*)'>", message)))
        expected = " or ".join(name for name in types if name != "NoneType") or "another value"
        return f"{option}.{found[1]}: expected {expected}, got {found[2]!r}"
    value = _first(r"Given value: (.*)", message) or _first(r"Got value: (.*)", message) or ""
    kind = key.rpartition(".")[2]
    if kind in _CLASS_PLACES:
        named = _first(r"class_path='([^']*)'", value) or value
        classes = {name.rpartition(".")[2]: name for place in _CLASS_PLACES[kind] for name in _classes_in(place, kind)}
        if re.fullmatch(r"[\w.]+", named) and named not in classes and named not in classes.values():
            close = closest(named.rpartition(".")[2], classes)
            hint = f"did you mean {classes[close]}?" if close else f"such as {', '.join(list(classes.values())[:3])}"
            return f"{option}: there is no {kind} {named}; {hint}"
    choices = [
        name for group in re.findall(r"Literal\[([^\]]*)\]", message) for name in re.findall(r"'([^']*)'", group)
    ]
    if choices:
        valid = list(dict.fromkeys(choices))
        return f"{option}: {value!r} is not one of {', '.join(valid)}{_nearest(value, valid)}"
    types = list(dict.fromkeys(re.findall(r"Expected an? <class '([^']*)'>", message)))
    if types:
        return f"{option}: expected {' or '.join(types)}, got {value!r}".replace("NoneType", "null")
    return f"{option}: {' '.join(message.partition(':')[2].split())}"


def explain_value(message: str) -> str:
    """What is wrong with a value that could not be made, in one line.

    Where it may be of several kinds, the parser says what keeps it from being each of them: of interest is only what
    the kind says that it was meant to be.
    """
    if "any of the Union subtypes" in message:
        reasons = re.findall(r"^\s*- (.*)$", message.partition("Errors:")[2], re.MULTILINE)
        own = {reason for reason in reasons if not reason.startswith(("Expected ", "Import path ", "Type "))}
        message = own.pop() if len(own) == 1 else message
    return " ".join(message.split())


def _unknown_option(option: str, known: list[str]) -> str:
    if not option.startswith("-"):
        return f"unexpected argument {option!r}: options begin with -- (see --help)"
    return f"unknown option {option}{_nearest(option, known)}"


def _nearest(word: str, valid: Iterable[str]) -> str:
    close = closest(word, valid)
    return f"; did you mean {close}?" if close else ""


def closest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that is most like another, if one is."""
    by_lower = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1].strip() if found else None


def _classes_in(place: str, kind: str) -> list[str]:
    import importlib

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    base = Optimizer if kind == "optimizer" else LRScheduler
    module = importlib.import_module(place)
    found = [thing for thing in vars(module).values() if isinstance(thing, type) and issubclass(thing, base)]
    return [f"{place}.{thing.__name__}" for thing in found if thing is not base and not thing.__name__.startswith("_")]


def _arguments_of(class_path: str) -> list[str]:
    import importlib
    import inspect

    module, _, name = class_path.rpartition(".")
    try:
        thing = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    return [parameter for parameter in inspect.signature(thing).parameters if parameter != "self"]
