"""What ``mnist_cnn`` does, as a plain loop, to hold its memory against: ``python experiments/benchmark/plain_run.py``.

The same network on the same data for one epoch, then the test, by torch alone: no Lightning, no torchvision, nothing
logged, checked or saved. Its last line is ``{"accuracy": ..., "seconds": ...}``.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_BATCH_SIZE, _TEST_BATCH_SIZE = 128, 1000
_VALIDATION = 5000  # images that the run keeps for its validation


def make_network() -> nn.Module:
    """The network of ``mnist_cnn``, written out: importing the zoo's would import Lightning, too."""
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    return network.to(memory_format=torch.channels_last)


def read_idx(file: Path, header: int) -> Tensor:
    """The bytes behind the header of a gzipped IDX file."""
    with gzip.open(file) as opened:
        return torch.from_numpy(np.frombuffer(opened.read(), dtype=np.uint8, offset=header).copy())


def read_mnist(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images ``(samples, 1, 28, 28)`` uint8 and labels ``(samples,)`` int64 of ``"train"`` or ``"t10k"``."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return images, read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).long()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train for an epoch and test, and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="python experiments/benchmark/plain_run.py", description="A plain loop.")
    parser.add_argument("--data_dir", default="data", help="the folder of MNIST/raw (default: data)")
    parser.add_argument("--bf16", action="store_true", help="mixed precision with bfloat16")
    parser.add_argument("--limit_batches", type=int, help="batches of the epoch and of the test (default: all)")
    given = parser.parse_args(arguments)
    started = time.perf_counter()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(given.data_dir) / "MNIST" / "raw"
    images, labels = (part.to(device) for part in read_mnist(folder, "train"))
    images, labels = images[:-_VALIDATION], labels[:-_VALIDATION]
    network = make_network().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=1e-4, fused=True)

    def logits_of(batch: Tensor) -> Tensor:
        mixed = torch.autocast(device.type, torch.bfloat16) if given.bf16 else contextlib.nullcontext()
        with mixed:
            logits: Tensor = network(batch.float().div_(255.0).sub_(0.1307).div_(0.3081))
        return logits.float()

    order = torch.split(torch.randperm(len(images), device=device), _BATCH_SIZE)
    for chosen in order[: given.limit_batches]:
        loss = functional.cross_entropy(logits_of(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    images, labels = (part.to(device) for part in read_mnist(folder, "t10k"))
    network.eval()
    right = seen = 0
    tested = list(zip(torch.split(images, _TEST_BATCH_SIZE), torch.split(labels, _TEST_BATCH_SIZE), strict=True))
    with torch.no_grad():
        for batch, truth in tested[: given.limit_batches]:
            right += int((logits_of(batch).argmax(dim=1) == truth).sum())
            seen += len(truth)
    print(json.dumps({"accuracy": right / seen, "seconds": round(time.perf_counter() - started, 3)}), flush=True)


if __name__ == "__main__":
    main()
