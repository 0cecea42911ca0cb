import contextlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import command_line

REPOSITORY = Path(__file__).parents[2]
RAW = REPOSITORY / "data" / "MNIST" / "raw"
HAS_MNIST = all(
    (RAW / f"{part}-{kind}.gz").is_file()
    for part in ("train", "t10k")
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)

# A few steps on the bundled digits: enough to see that things are in their place.
SHORT = [
    *("--data.dataset", "digits", "--data.batch_size", "64"),
    *("--trainer.max_epochs", "2", "--trainer.limit_train_batches", "12", "--trainer.log_every_n_steps", "5"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every run in an empty directory, without account, and as if started without arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_PROJECT", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    # main() must not read them.
    monkeypatch.setattr(sys, "argv", ["pytest", "--no-such-option"])
    monkeypatch.setattr(command_line, "DEFAULT_FIGURES", "none")  # a second a run; test_figures.py draws
    return tmp_path


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """Runs an experiment in this process, each command line once: its name, directory, metrics, and what it printed."""
    done = {}

    def run(name, *options):
        key = (name, *options)
        if key not in done:
            directory = tmp_path_factory.mktemp(name)
            out = io.StringIO()
            main = importlib.import_module(f"experiments.{name}").main
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
                patch.chdir(directory)
                metrics = main(["--tracking", "csv", "--figures", "none", "--run_dir", str(directory), *options])
            done[key] = SimpleNamespace(name=name, directory=directory, metrics=metrics, out=out.getvalue())
        return done[key]

    return run


@pytest.fixture
def read_wandb():
    """Reads offline runs back with W&B's own tool: ``{config, summary, state, exit_code, ...}`` of each, by start."""
    pytest.importorskip("wandb")

    def read(directory):
        runs = []
        for file in sorted(Path(directory).glob("wandb/offline-run-*/*.wandb")):
            command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary", str(file)]
            runs.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
        return runs

    return read


@pytest.fixture
def read_artifacts():
    """The artifacts in the newest offline run of a directory, read back with W&B's own tool."""
    pytest.importorskip("wandb")

    def read(directory):
        [*_, file] = sorted(Path(directory).glob("wandb/offline-run-*/*.wandb"))
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        records = map(json.loads, subprocess.run(command, capture_output=True, check=True).stdout.splitlines())
        return [record["artifact"] for record in records if record["type"] == "artifact"]

    return read


@pytest.fixture
def summary_of():
    return lambda directory: json.loads((Path(directory) / "summary.json").read_text())
