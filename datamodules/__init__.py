"""Data modules for Lightning, and the loader under them, usable with any tensors."""

from datamodules.augment import RandomAffine, RandomShift
from datamodules.base import InMemoryDataModule, Split, Splits, TensorDataModule
from datamodules.errors import DataError
from datamodules.loader import BatchLoader
from datamodules.mnist import FallbackWarning, MNISTDataModule
from datamodules.synthetic import (
    GaussianBlobsDataModule,
    LinearDataModule,
    MoonsDataModule,
    PolynomialDataModule,
    SyntheticDataModule,
    XORDataModule,
)

__all__ = [
    "BatchLoader",
    "DataError",
    "FallbackWarning",
    "GaussianBlobsDataModule",
    "InMemoryDataModule",
    "LinearDataModule",
    "MNISTDataModule",
    "MoonsDataModule",
    "PolynomialDataModule",
    "RandomAffine",
    "RandomShift",
    "Split",
    "Splits",
    "SyntheticDataModule",
    "TensorDataModule",
    "XORDataModule",
]
