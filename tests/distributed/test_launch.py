"""Experiments whose further processes Lightning starts itself."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from datamodules import LinearDataModule
from experiments import robust_regression
from zoo import LinearRegressor

HERE = Path(__file__).parent
PATIENCE = 180  # seconds
OPTIONS = (
    *("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"),
    *("--trainer.max_epochs", "2", "--tracking", "csv", "--run_dir", "run"),
    *("--data.num_samples", "400", "--data.batch_size", "20", "--data.val_size", "1"),
)


def launched(directory, *command):
    """Exit code and output; a command that does not end is killed with all its processes, and fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PL_GLOBAL_SEED", "ZOO_RUN_DIR")}
    environment = {**kept, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    with (directory / "output").open("w+") as file:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=file, stderr=file, cwd=directory, env=environment, start_new_session=True
        )
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"no end after {PATIENCE} s: {(directory / 'output').read_text()}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return code, (directory / "output").read_text()


def test_an_experiment_on_two_processes_has_one_run_directory_and_the_figures_of_its_checkpoint(tmp_path, monkeypatch):
    code, output = launched(tmp_path, "-m", "experiments.robust_regression", *OPTIONS)
    assert code == 0, output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "run"]
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"checkpoints", "config.yaml", "figures", "metrics.csv", "summary.json"}
    assert (tmp_path / "run" / "figures" / "learning_curves.png").is_file()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())

    data = LinearDataModule(num_samples=400, num_features=10, outlier_share=0.1, val_size=1, seed=summary["seed"])
    task = LinearRegressor.load_from_checkpoint(tmp_path / summary["checkpoint"])
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    [expected] = trainer.test(task, data, verbose=False)
    assert {name: summary[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    # 319 samples for training, of which 40 a step: 7 steps an epoch, for both processes together.
    assert summary["steps"] == 14
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert sum(bool(row["val/loss"]) for row in csv.DictReader(file)) == 2
    assert output.count("squared_error/mse") == 1

    alone = ("--trainer.devices", "1", "--trainer.strategy", "auto", "--data.batch_size", "40", "--run_dir", "alone")
    for name in ("PL_GLOBAL_SEED", "ZOO_RUN_DIR"):  # set by the run
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    figures = robust_regression.main([*OPTIONS, *alone])
    # Trained beside the run: as it was, by all processes together.
    assert summary["examined"] == pytest.approx({name: figures[name] for name in summary["examined"]}, rel=1e-5)


def test_an_error_of_one_process_ends_all_and_is_told(tmp_path):
    code, output = launched(tmp_path, str(HERE / "failing.py"), *OPTIONS)
    assert code != 0
    assert "error of rank 1: this rank's file is damaged" in output
