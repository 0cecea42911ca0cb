"""Data modules for Lightning, and the loader under them, usable with any tensors."""

from datamodules.augment import RandomAffine, RandomShift
from datamodules.base import InMemoryDataModule, Split, Splits, TensorDataModule
from datamodules.errors import DataError
from datamodules.loader import BatchLoader
from datamodules.mnist import FallbackWarning, MNISTDataModule

__all__ = [
    "BatchLoader",
    "DataError",
    "FallbackWarning",
    "InMemoryDataModule",
    "MNISTDataModule",
    "RandomAffine",
    "RandomShift",
    "Split",
    "Splits",
    "TensorDataModule",
]
