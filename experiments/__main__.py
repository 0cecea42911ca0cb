"""``python -m experiments`` lists the experiments, a line each, without importing any."""

from __future__ import annotations

import ast
from pathlib import Path


def list_experiments() -> dict[str, str]:
    """The first line of the docstring of every module here that has a ``main``, by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


if __name__ == "__main__":
    experiments = list_experiments()
    width = max(map(len, experiments))
    for name, summary in experiments.items():
        print(f"{name:{width}}  {summary}")
    print("\nRun one with: python -m experiments.NAME [--help]")
