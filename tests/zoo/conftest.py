"""Quiet trainers, small data and a logger that keeps what it is given."""

import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from datamodules import TensorDataModule


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small gain nothing from threads, and lose much where others compute on the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(0)


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer on the CPU that writes and prints nothing unless it is asked to."""

    def make(**settings):
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": tmp_path,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "GPU available but not used")
            return Trainer(**(quiet | settings))

    return make


class ListLogger(Logger):
    """Keeps every call as ``(step, metrics)``, and the hyperparameters."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.settings = {}

    name = "list"
    version = 0

    def log_hyperparams(self, params, *args, **kwargs):
        self.settings.update(params)

    def log_metrics(self, metrics, step=None):
        self.calls.append((step, dict(metrics)))

    def values(self, name):
        """``{step: value}`` of one metric."""
        return {step: metrics[name] for step, metrics in self.calls if name in metrics}


@pytest.fixture
def list_logger():
    return ListLogger()


@pytest.fixture
def make_data():
    """Three classes of four numbers: ``train`` samples in batches of 4, 7 for validation and 5 for the test."""

    def make(train=12, **settings):
        generator = torch.Generator().manual_seed(1)
        total = train + 7 + 5
        labels = torch.arange(total) % 3
        features = torch.randn(total, 4, generator=generator) + labels[:, None]
        arguments = {"batch_size": 4, "eval_batch_size": 4, "val_size": 7, "test_size": 5, "seed": 0} | settings
        return TensorDataModule(features, labels, **arguments)

    return make


@pytest.fixture
def make_images():
    """Twenty-four random images of ten classes, of any size."""

    def make(size=28, channels=1, num_classes=10):
        generator = torch.Generator().manual_seed(2)
        features = torch.randn(24, channels, size, size, generator=generator)
        return TensorDataModule(
            features, torch.arange(24) % num_classes, batch_size=8, eval_batch_size=5, val_size=4, test_size=4, seed=0
        )

    return make
