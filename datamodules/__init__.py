"""Data modules for Lightning, and the loader under them, usable with any tensors."""

from datamodules.augment import RandomAffine, RandomElastic, RandomShift
from datamodules.base import InMemoryDataModule, Split, Splits, TensorDataModule
from datamodules.digit_strings import DigitStringsDataModule
from datamodules.errors import DataError
from datamodules.loader import BatchLoader, EpochLoader
from datamodules.mnist import FallbackWarning, MNISTDataModule
from datamodules.padded import LabelBatch, Padded, PaddedBatch
from datamodules.sequences import SineDataModule
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
    "DigitStringsDataModule",
    "EpochLoader",
    "FallbackWarning",
    "GaussianBlobsDataModule",
    "InMemoryDataModule",
    "LabelBatch",
    "LinearDataModule",
    "MNISTDataModule",
    "MoonsDataModule",
    "Padded",
    "PaddedBatch",
    "PolynomialDataModule",
    "RandomAffine",
    "RandomElastic",
    "RandomShift",
    "SineDataModule",
    "Split",
    "Splits",
    "SyntheticDataModule",
    "TensorDataModule",
    "XORDataModule",
]
