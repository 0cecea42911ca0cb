import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

FILES = sorted(Path(zoo.__file__).parent.rglob("*.py"))
MODULES = ["zoo", *(module.name for module in pkgutil.walk_packages(zoo.__path__, "zoo."))]


def imported(path):
    """The first names of everything that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "zoo" if node.level else node.module.partition(".")[0]


def test_all_of_zoo_is_looked_at():
    assert len(MODULES) == len(FILES) >= 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_zoo_knows_nothing_of_data_and_experiments(path):
    assert not {"datamodules", "experiments", "tests"} & set(imported(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_torch_that_is_built_without_its_distributed_package_will_do(path):
    """It has ``torch.distributed``, and nothing in there."""
    modules = [node.module or "" for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert not [module for module in modules if module.startswith("torch.distributed.")]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert len(set(public)) == len(public)
    assert all(hasattr(module, each) for each in public)


def test_importing_zoo_imports_neither_wandb_nor_matplotlib():
    # Lightning and torchmetrics import matplotlib themselves where they find it, so only what zoo adds is looked at.
    code = (
        "import sys, torch, lightning.pytorch, lightning.pytorch.cli, torchmetrics\n"
        "before = set(sys.modules)\n"
        f"import {', '.join(MODULES)}\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))\n"
        "print('wandb' in sys.modules)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    added, wandb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "zoo" in added.split()
    assert wandb == "False"
    assert not {"wandb", "matplotlib", "sklearn", "tensorboard", "datamodules", "experiments"} & set(added.split())
