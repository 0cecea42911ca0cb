"""The field's standard script, to hold ours against: ``python experiments/benchmark/standard_script.py``.

The network, the optimizer and the schedule of PyTorch's MNIST example, read image by image through torchvision, in 32
bits and without Lightning. It ends at the first epoch whose test accuracy reaches the target, and its last line is
``{"accuracy": ..., "epochs": ..., "seconds": ...}``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adadelta, Optimizer
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

_BATCH_SIZE, _TEST_BATCH_SIZE = 64, 1000

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Result:
    """What the script came to.

    Args:
        accuracy: of the last test.
        epochs: how many it took.
        seconds: from reading the data to the last test, without the imports.
    """

    accuracy: float
    epochs: int
    seconds: float


def make_network() -> nn.Module:
    """The example's network: ``(batch, 1, 28, 28)`` → log-probabilities ``(batch, 10)``."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
        nn.LogSoftmax(dim=1),
    )


def train(network: nn.Module, batches: Batches, optimizer: Optimizer, device: torch.device) -> None:
    """Take a step for each batch."""
    network.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = functional.nll_loss(network(images.to(device)), labels.to(device))
        torch.autograd.backward(loss)
        optimizer.step()


def test(network: nn.Module, batches: Batches, device: torch.device) -> float:
    """The share of images that are read right."""
    network.eval()
    right = seen = 0
    with torch.no_grad():
        for images, labels in batches:
            predicted = network(images.to(device)).argmax(dim=1)
            right += int((predicted == labels.to(device)).sum())
            seen += len(labels)
    return right / seen


def run(target: float, data_dir: str, max_epochs: int, limit_batches: int | None = None, seed: int = 1) -> Result:
    """Train and test in turn until the test accuracy reaches ``target``.

    Args:
        target: a share.
        data_dir: where torchvision's ``MNIST`` folder is.
        max_epochs: after which it ends in any case.
        limit_batches: of each epoch and each test.
        seed: of everything.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    workers = int(device.type == "cuda")  # as in the example

    def load(part: MNIST, batch_size: int, shuffle: bool) -> DataLoader[tuple[Tensor, Tensor]]:
        beside = bool(workers)
        return DataLoader(part, batch_size, shuffle, num_workers=workers, pin_memory=beside, persistent_workers=beside)

    training = load(MNIST(data_dir, True, transform), _BATCH_SIZE, shuffle=True)
    testing = load(MNIST(data_dir, False, transform), _TEST_BATCH_SIZE, shuffle=False)
    network = make_network().to(device)
    optimizer = Adadelta(network.parameters(), lr=1.0)
    schedule = StepLR(optimizer, step_size=1, gamma=0.7)
    accuracy, epoch = 0.0, 0
    for epoch in range(1, max_epochs + 1):
        train(network, itertools.islice(training, limit_batches), optimizer, device)
        accuracy = test(network, itertools.islice(testing, limit_batches), device)
        schedule.step()
        print(f"epoch {epoch}: test accuracy {accuracy:.4f}", flush=True)
        if accuracy >= target:
            break
    return Result(accuracy, epoch, round(time.perf_counter() - started, 3))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with a command line, and print the result as JSON."""
    parser = argparse.ArgumentParser(
        prog="python experiments/benchmark/standard_script.py", description="PyTorch's MNIST example."
    )
    parser.add_argument("--target", type=float, default=0.99, help="test accuracy that ends it (default: 0.99)")
    parser.add_argument("--data_dir", default="data", help="the folder of MNIST/raw (default: data)")
    parser.add_argument("--max_epochs", type=int, default=14, help="epochs at most (default: 14, the example's)")
    parser.add_argument("--limit_batches", type=int, help="batches of an epoch and of a test (default: all)")
    given = parser.parse_args(arguments)
    if given.max_epochs < 1 or (given.limit_batches is not None and given.limit_batches < 1):
        parser.error("--max_epochs and --limit_batches must be at least 1")
    result = run(given.target, given.data_dir, given.max_epochs, given.limit_batches)
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
