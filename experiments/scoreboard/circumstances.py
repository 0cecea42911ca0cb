"""What a figure was come to with: machine, revision, and the code that an experiment runs."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.hardware import cpu_model, device_name

ROOT = Path(__file__).parents[2]
"""Where the packages are, in a checkout beside the README."""

OUTPUTS = ("SCOREBOARD.md", "scoreboard.json")
_OURS = ("experiments", "datamodules", "zoo")
_WORDS_ALONE = ("architecture", "headline", "reported", "seeds")  # of an Experiment: what is told, not what is run


@dataclass(frozen=True)
class Revision:
    """The revision of a checkout.

    Args:
        commit: its hash; ``None`` where this is no checkout, or there is no git.
        clean: whether nothing was changed since, but for the scoreboard itself.
    """

    commit: str | None
    clean: bool


def revision(root: Path = ROOT) -> Revision:
    """That of the code which is running."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "experiments/__init__.py")  # a package may be installed in another checkout
        changed = git("status", "--porcelain", "--", ".", *(f":!{name}" for name in OUTPUTS))
        return Revision(git("rev-parse", "HEAD"), not changed)
    except (OSError, subprocess.SubprocessError):
        return Revision(None, clean=False)


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB and GPU."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    names = os.sysconf_names if hasattr(os, "sysconf") else {}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else 0
    return {
        "cpu": cpu_model(),
        "cores": len(cores),
        "memory_gib": round(memory / 2**30, 1) or None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def device() -> str:
    """What a run takes by itself, such as ``"NVIDIA H200"``, or a processor and the threads on it."""
    return device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


# ------------------------------------------------------------------ the code


def code_digest(experiment: str, root: Path = ROOT) -> str:
    """A digest of all code of ours that an experiment imports, without comments and docstrings.

    With it goes the file of shipped weights that the experiment begins with, if it does. Neither the words about an
    experiment nor another experiment change it.

    Raises:
        SyntaxError: a module is none.
    """
    found = hashlib.sha256()
    for path in sorted(_imported(f"experiments.{experiment}", root)):
        found.update(f"{path.relative_to(root).as_posix()}\n{_code(*_stamp(path))}\n".encode())
    module = root / "experiments" / f"{experiment}.py"
    for weights in _begun_with(module, root) if module.is_file() else ():
        found.update(weights.read_bytes())
    return found.hexdigest()


def _begun_with(module: Path, root: Path) -> list[Path]:
    """The shipped weights that a module names in a call of ``from_pretrained`` or ``load_pretrained``."""
    names = {
        argument.value
        for node in ast.walk(ast.parse(module.read_bytes()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("from_pretrained", "load_pretrained"))
        for argument in node.args[:1]
        if isinstance(argument, ast.Constant)
    }
    paths = [root / "zoo" / "pretrained" / f"{name}.safetensors" for name in sorted(map(str, names))]
    return [path for path in paths if path.is_file()]


def _imported(module: str, root: Path) -> set[Path]:
    paths: set[Path] = set()
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in seen or name.partition(".")[0] not in _OURS:
            continue
        seen.add(name)
        pending.append(name.rpartition(".")[0])  # a package is imported before its modules
        base = root.joinpath(*name.split("."))
        path = next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)
        if path is not None:  # else it is a name in a module
            paths.add(path)
            pending += _imports(*_stamp(path))
    return paths


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1024)
def _imports(path: Path, changed: int, size: int) -> tuple[str, ...]:
    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    return tuple(names())


@functools.lru_cache(maxsize=1024)
def _code(path: Path, changed: int, size: int) -> str:
    return ast.dump(without_words(ast.parse(path.read_bytes())))


def without_words(tree: ast.Module) -> ast.Module:
    """A module's code without its docstrings, and without what an ``Experiment`` says of itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Experiment":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _WORDS_ALONE]
    return tree
