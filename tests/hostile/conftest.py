import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules import TensorDataModule
from zoo import MLPClassifier
from zoo.checkpointing import SealedCheckpointIO


@pytest.fixture
def make_trainer(tmp_path):
    def make(**settings):
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": tmp_path,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_epochs": 1,
            "log_every_n_steps": 1,
            "plugins": [SealedCheckpointIO()],
        }
        return Trainer(**(quiet | settings))

    return make


@pytest.fixture
def make_data():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 4, generator=generator)
    return lambda: TensorDataModule(features, torch.arange(24) % 3, batch_size=8, val_size=4, test_size=4)


@pytest.fixture
def good(make_trainer, make_data, tmp_path):
    """The contents of a whole checkpoint of a small classifier."""
    trainer = make_trainer()
    trainer.fit(MLPClassifier(in_features=4, num_classes=3, hidden=(4,)), make_data())
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    return torch.load(tmp_path / "good.ckpt", weights_only=True)


@pytest.fixture
def server(tmp_path):
    """Serves the files of a directory on loopback, and counts who asks."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            content = (tmp_path / "evil.ckpt").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    running.requests = requests
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
