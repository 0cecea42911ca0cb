"""What it costs to read batches: against the usual way, and as the data grow."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, ToTensor

from datamodules import DataError, LinearDataModule, MNISTDataModule
from datamodules.loader import EpochLoader
from datamodules.padded import dense
from experiments.benchmark.comparison import Comparison, Pair, alternate

_BATCH_SIZE = 256
_LEAST_SECONDS = 0.5  # of a measurement
_GROWTH_BATCH_SIZE = 1000
_FEW, _MANY = 10_000, 10_000_000  # in training
_TRAINING_SHARE = 0.7
_WORKERS = (0, 2)


class ImageByImage(Dataset[tuple[Tensor, int]]):
    """Images as ``torchvision.datasets.MNIST`` gives them: each a picture of PIL's, transformed by itself.

    Args:
        images: ``(samples, height, width)`` uint8.
        labels: ``(samples,)``.
        mean: of the pixels, which are in [0, 1].
        std: likewise.
    """

    def __init__(self, images: Tensor, labels: Tensor, mean: float = 0.1307, std: float = 0.3081) -> None:
        self.images = images
        self.labels = labels
        self.transform = Compose([ToTensor(), Normalize((mean,), (std,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), int(self.labels[index])


def mnist(data_dir: str = "data") -> MNISTDataModule:
    """MNIST as it is read here, ready; without its files the bundled digits."""
    data = MNISTDataModule(data_dir, source="local", batch_size=_BATCH_SIZE, augment=None, seed=0)
    try:
        data.setup()
    except DataError:
        data = MNISTDataModule(dataset="digits", batch_size=_BATCH_SIZE, augment=None, seed=0)
        data.setup()
    return data


def image_by_image(data: MNISTDataModule, num_workers: int) -> DataLoader[tuple[Tensor, int]]:
    """The loader of torch over the training images of ``data``."""
    split = data.splits.train
    dataset = ImageByImage(dense(split.features).squeeze(1), dense(split.targets))
    return DataLoader(
        dataset,
        batch_size=data.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,  # to its favour: they are started once
    )


def samples_a_second(loader: Iterable[tuple[Tensor, Tensor]], least_seconds: float = 0.0) -> float:
    """The rate of reading whole epochs, as many as take at least so many seconds."""
    samples, started = 0, time.perf_counter()
    while True:
        for _, targets in loader:
            samples += len(targets)
        seconds = time.perf_counter() - started
        if seconds >= least_seconds:
            return samples / seconds


def _measure_loader(rounds: int) -> Iterator[Pair]:
    data = mnist()
    ours = data.train_dataloader()
    rates = {}
    loaders = {workers: image_by_image(data, workers) for workers in _WORKERS}
    for workers, loader in loaders.items():
        if workers:
            samples_a_second(loader)  # which starts them
        rates[workers] = samples_a_second(loader)
    best = max(rates, key=lambda workers: rates[workers])
    baseline = loaders[best]
    del loaders, loader  # and with them the workers that nobody needs
    tried = ", ".join(f"{rate:,.0f} with {workers}" for workers, rate in rates.items())
    note = f"{data.dataset_name}; the DataLoader with num_workers={best} (samples a second: {tried})"
    samples_a_second(ours)
    for pair in alternate(lambda: samples_a_second(ours, _LEAST_SECONDS), lambda: samples_a_second(baseline), rounds):
        yield Pair(pair.ours, pair.baseline, note)


def rows(num_samples: int, batch_size: int) -> EpochLoader:
    """Our loader over the training split of so many rows of made data with one feature."""
    data = LinearDataModule(num_samples=num_samples, batch_size=batch_size, seed=0)
    data.setup()
    return data.train_dataloader()


def nanoseconds_a_sample(loader: EpochLoader, samples: int) -> float:
    """The time of reading whole epochs, as many as have at least so many samples."""
    read, started = 0, time.perf_counter()
    while read < samples:
        for _, targets in loader:
            read += len(targets)
    return 1e9 * (time.perf_counter() - started) / read


def _measure_growth(rounds: int) -> Iterator[Pair]:
    few, many = (rows(round(number / _TRAINING_SHARE), _GROWTH_BATCH_SIZE) for number in (_FEW, _MANY))
    nanoseconds_a_sample(few, few.num_samples)
    nanoseconds_a_sample(many, many.num_samples)
    yield from alternate(
        lambda: nanoseconds_a_sample(many, 4 * many.num_samples),
        lambda: nanoseconds_a_sample(few, 4 * many.num_samples),
        rounds,
    )


LOADER = Comparison(
    name="loader",
    ours=f"our loader, MNIST, batches of {_BATCH_SIZE}, standardised",
    baseline="torch's DataLoader over torchvision's transforms of single images",
    unit="samples/s",
    must=20.0,
    aim=40.0,
    measure=_measure_loader,
    more_is_better=True,
)

GROWTH = Comparison(
    name="growth",
    ours=f"a sample of {_MANY:,} rows, batches of {_GROWTH_BATCH_SIZE:,}",
    baseline=f"a sample of {_FEW:,} rows, likewise",
    unit="ns",
    must=1.1,
    aim=1.0,
    measure=_measure_growth,
)

COMPARISONS = [LOADER, GROWTH]
