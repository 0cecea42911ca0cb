"""Checkpoints, weights and configurations to be fuzzed."""

import io
import logging
import shutil
from pathlib import Path

import torch
from fuzz import Target
from lightning.pytorch import Trainer
from mutations import blind, in_archive, in_pickle, in_text

from datamodules import MNISTDataModule, TensorDataModule
from experiments.checkpoints import data_arguments, load_trained
from experiments.cli_errors import UsageError
from experiments.command_line import ExperimentCLI
from experiments.digit_reader import load_reader
from experiments.linear_regression import EXPERIMENT
from zoo import CNNClassifier, MLPClassifier
from zoo.checkpointing import CheckpointError, SealedCheckpointIO, load_weights, read_checkpoint


def model():
    return CNNClassifier(channels=(4,), hidden=None, image_size=8, padding=None)


def checkpoints(directory):
    """Of two small models after an epoch, sealed."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name, task, shape in (("cnn", model(), (1, 8, 8)), ("mlp", MLPClassifier(in_features=4, num_classes=3), (4,))):
        data = TensorDataModule(torch.randn(24, *shape), torch.arange(24) % 3, batch_size=8, val_size=4, test_size=4)
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[SealedCheckpointIO()],
        )
        trainer.fit(task, data)
        trainer.save_checkpoint(directory / f"{name}.ckpt")
    return [(directory / f"{name}.ckpt").read_bytes() for name in ("cnn", "mlp")]


def unsealed(directory):
    seeds = []
    for number, data in enumerate(checkpoints(directory)):
        path = directory / f"{number}.pt"
        torch.save(torch.load(io.BytesIO(data), weights_only=True), path)
        seeds.append(path.read_bytes())
    return seeds


def one_model(directory):
    return unsealed(directory)[:1]


def readers(directory):
    """Of a small model of pictures, unsealed, with what it says of the data behind it."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = MNISTDataModule(dataset="digits", image_size=8, batch_size=8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        log_every_n_steps=1,
        enable_checkpointing=False,
        **quiet,
    )
    trainer.fit(model(), data)
    trainer.save_checkpoint(directory / "reader.pt")
    torch.save({**torch.load(directory / "reader.pt", weights_only=True), "temperature": 0.5}, directory / "reader.pt")
    return [(directory / "reader.pt").read_bytes()]


def open_reader(path):
    load_reader(str(path))
    trained = load_trained(str(path))
    if trained.data is not None:
        data_arguments(trained.data, {})


def weights(directory):
    torch.manual_seed(0)
    seeds = []
    for value in (model().network.state_dict(), dict(model().state_dict())):
        torch.save(value, directory / "weights.pt")
        seeds.append((directory / "weights.pt").read_bytes())
    return seeds


SEALED = {}


def sealed(directory):
    seeds = checkpoints(directory)
    for data in seeds:
        path = directory / "whole.ckpt"
        path.write_bytes(data)
        contents = read_checkpoint(path)
        SEALED[data] = _bytes(contents)
    return seeds


def open_sealed(path):
    contents = read_checkpoint(path)
    assert _bytes(contents) in SEALED.values(), "a changed file was opened"


def _bytes(contents):
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    return buffer.getvalue()


CONFIG = """
model:
  optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
  scheduler:
    class_path: zoo.optim.OneCycle
trainer:
  max_epochs: 2
  callbacks:
  - class_path: lightning.pytorch.callbacks.Timer
    init_args:
      duration: 00:00:10:00
data:
  batch_size: 16
patience: 3
tracking: csv
"""


def configs(directory):
    cli = _cli(["--trainer.accelerator", "cpu", "--run_dir", str(directory / "run")])
    return [cli._config_text().encode(), CONFIG.encode()]


def _cli(args):
    cli = ExperimentCLI(EXPERIMENT, ["--tracking", "csv", *args], None)
    shutil.rmtree(cli.directory)
    return cli


def open_config(path):
    torch.set_num_threads(1)
    _cli(["--config", str(path), "--tracking", "csv", "--run_dir", str(Path.cwd() / "run")])


TARGETS = [
    Target("sealed-checkpoint", sealed, open_sealed, (CheckpointError,), [blind], ".ckpt"),
    Target(
        "checkpoint", unsealed, read_checkpoint, (CheckpointError,), [blind, in_archive, in_pickle, in_pickle], ".ckpt"
    ),
    Target(
        "load_from_checkpoint",
        one_model,
        CNNClassifier.load_from_checkpoint,
        (CheckpointError,),
        [in_archive, in_pickle, in_pickle],
        ".ckpt",
    ),
    Target("reader", readers, open_reader, (CheckpointError,), [in_archive, in_pickle, in_pickle], ".ckpt"),
    Target(
        "weights",
        weights,
        lambda path: load_weights(model().network, path),
        (CheckpointError,),
        [blind, in_archive, in_pickle, in_pickle],
        ".pt",
    ),
    Target("config", configs, open_config, (UsageError,), [in_text, in_text, blind], ".yaml", quick=20),
]
