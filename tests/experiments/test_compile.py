"""What ``--compile`` changes, and what it does not."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from experiments import binary_moons
from zoo import BinaryMLPClassifier

COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
# Of torch 2.11's own, when its compiler is imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler")
TINY = [
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--tracking", "none", "--model.hidden", "[4]"),
    # Batches of one size, so that there is no more than one graph for each of training and evaluation.
    *("--data.num_samples", "40", "--data.batch_size", "10", "--data.val_size", "10", "--data.test_size", "10"),
    *("--data.eval_batch_size", "10", "--trainer.enable_progress_bar", "false"),
]


def graphs():
    """How many graphs have been compiled in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory with one run as it is and one that was compiled."""
    directory = tmp_path_factory.mktemp("runs")
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),  # a mark says nothing to a fixture of the module
    ):
        warnings.filterwarnings(
            "ignore", message="`torch.jit.script_method` is deprecated", category=DeprecationWarning
        )
        patch.chdir(directory)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(directory / "cache"))
        binary_moons.main([*TINY, "--run_dir", "plain"])
        before = graphs()
        metrics = binary_moons.main([*TINY, "--run_dir", "compiled", "--compile", "default"])
        assert graphs() > before
    return directory, metrics


def test_an_unknown_mode_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        binary_moons.main([*TINY, "--run_dir", "run", "--compile", "reduce"])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: --compile: 'reduce' is not one of default, reduce-overhead, max-autotune[^\n]*\n", err)
    assert not Path("run").exists()


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@needs_compiler
def test_a_checkpoint_does_not_show_that_its_run_was_compiled(runs):
    directory, metrics = runs
    plain, compiled = weights(directory / "plain"), weights(directory / "compiled")
    assert list(compiled) == list(plain)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)
    task = BinaryMLPClassifier.load_from_checkpoint(directory / "compiled" / "checkpoints" / "last.ckpt")
    assert task.network._compiled_call_impl is None
    assert all(torch.equal(value, compiled[name]) for name, value in task.state_dict().items() if name in compiled)
    assert metrics["test/loss"] > 0.0


@needs_compiler
@pytest.mark.parametrize(
    ("begun", "options", "modes"),
    [
        ("plain", ["--compile", "default"], ["default"]),
        ("compiled", ["--compile", "null"], []),
        ("compiled", [], ["default"]),
    ],
)
def test_a_run_is_resumed_with_and_without(runs, tmp_path, monkeypatch, begun, options, modes):
    compiled = []
    compile_in_place = torch.nn.Module.compile

    def spy(network, **arguments):
        compiled.append(arguments["mode"])
        compile_in_place(network, **arguments)

    monkeypatch.setattr(torch.nn.Module, "compile", spy)
    directory, _ = runs
    run = shutil.copytree(directory / begun, tmp_path / "run")
    before = weights(run)
    binary_moons.main(["--resume", str(run), "--trainer.max_epochs", "2", *options])
    assert compiled == modes
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert list(weights(run)) == list(before)
    assert not all(torch.equal(value, before[name]) for name, value in weights(run).items())


@pytest.mark.skipif(sys.platform == "win32", reason="CXX is not asked there")
def test_a_missing_compiler_is_told_in_one_line(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "CXX": "/nonexistent",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "experiments.binary_moons", *TINY, "--run_dir", "run", "--compile", "default"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: --compile: [^\n]*[Cc]ompiler[^\n]*/nonexistent[^\n]*\n", done.stderr)
