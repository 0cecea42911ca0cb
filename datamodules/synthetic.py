"""Made data, whose best possible result is known.

The same arguments and seed give the same numbers on every machine and with every release of torch and NumPy, and a
longer data set begins with the samples of a shorter one. Every sample is drawn by itself, so the splits are simply
the first, the next and the last samples.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datamodules.base import InMemoryDataModule, Split, Splits, split_size
from datamodules.errors import DataError, check_positive
from datamodules.memory import memory
from datamodules.portable_random import Floats, Stream, half_circle

# Made at once, so that 64-bit intermediates need little memory beside the data.
_CHUNK = 1 << 15  # samples, and of wide ones no more than make
_CHUNK_NUMBERS = 1 << 19
_LARGEST = 1e30  # of any argument: squares and sums of such numbers are still far from the ends of 32 bits' range
_LARGEST_DEGREE = 1000
_EVALUATION_SHARE = 0.2


class SyntheticDataModule(InMemoryDataModule):
    """The common part: sizes, splits, and memory; a subclass makes the samples.

    Args:
        num_samples: samples in all.
        num_features: numbers a sample.
        val_size: the samples for validation: a share in (0, 1), or a number.
        test_size: the samples for the test, likewise.
        batch_size: see :class:`InMemoryDataModule`, as for the arguments below.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: of the samples, the order and the augmentation, at least 0; ``None`` takes that of ``seed_everything``,
            else 0.

    Raises:
        DataError: a value out of range, or more samples than fit in memory.
    """

    #: Whether targets are class indices ``(samples,)`` int64, or values ``(samples, 1)`` float32.
    has_classes = False

    def __init__(
        self,
        num_samples: int,
        num_features: int,
        val_size: int | float,
        test_size: int | float,
        batch_size: int,
        eval_batch_size: int,
        standardize: bool,
        drop_last: bool,
        seed: int | None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            standardize=standardize,
            drop_last=drop_last,
            seed=seed,
        )
        check_positive(num_samples=num_samples, num_features=num_features)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise DataError(f"seed must be an integer of at least 0, got {self.seed!r}")
        self.num_samples = num_samples
        self.num_features = num_features
        self.val_size = val_size
        self.test_size = test_size
        needed = num_samples * (4 * num_features + 8) + 64 * num_features
        if needed > memory():
            raise _too_large(num_samples, num_features)
        # Takes the arguments of the subclass's __init__, and those of this one, of which not every subclass has all.
        own = inspect.signature(type(self)).parameters
        self.save_hyperparameters(ignore=[] if "num_features" in own else ["num_features"], logger=False)
        self.hparams["seed"] = self.seed
        # Plain values only, they are saved in every checkpoint; NumPy's 64-bit floats are floats, too.
        self.hparams.update({name: float(value) for name, value in self.hparams.items() if isinstance(value, float)})

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of the features of a sample."""
        return (self.num_features,)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Of a sample's target."""
        return () if self.has_classes else (1,)

    @abstractmethod
    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, npt.NDArray[Any]]:
        """The next ``count`` samples, of which the first is number ``start``.

        Args:
            streams: made on demand, by name; each goes on where the last call left it.
            start: number of the first sample.
            count: how many.

        Returns:
            Features and targets, ``count`` of each, in any shape with as many numbers a sample.
        """

    def load_splits(self) -> Splits:
        val = split_size("val_size", self.val_size, self.num_samples)
        test = split_size("test_size", self.test_size, self.num_samples)
        train = self.num_samples - val - test
        if train < 1:
            raise DataError(
                f"of {self.num_samples} samples {val + test} are for validation and test: none are left for training"
            )
        try:
            features, targets = self._draw_all(train + val)
        except MemoryError as error:
            raise _too_large(self.num_samples, self.num_features) from error
        inputs, outputs = torch.from_numpy(features), torch.from_numpy(targets)
        parts = [slice(0, train), slice(train, train + val), slice(train + val, None)]
        return Splits(*(Split(inputs[part], outputs[part]) for part in parts))

    def _draw_all(self, seen: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        features = np.empty((self.num_samples, *self.feature_shape), dtype=np.float32)
        targets = np.empty((self.num_samples, *self.target_shape), dtype=np.int64 if self.has_classes else np.float32)
        streams = _Streams(self.seed)
        chunk = max(1, min(_CHUNK, _CHUNK_NUMBERS // self.num_features))
        for start in range(0, self.num_samples, chunk):
            count = min(chunk, self.num_samples - start)
            drawn, wanted = self.draw(streams, start, count)
            features[start : start + count] = drawn.reshape(count, *self.feature_shape)
            targets[start : start + count] = wanted.reshape(count, *self.target_shape)
        for start in range(0, seen, _CHUNK):
            self.finish(streams, targets[start : min(start + _CHUNK, seen)])
        return features, targets

    def finish(self, streams: dict[str, Stream], targets: npt.NDArray[Any]) -> None:
        """Change, in place, the next targets, all of samples that training may see."""


class _Streams(dict[str, Stream]):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __missing__(self, name: str) -> Stream:
        self[name] = Stream(self._seed, name)
        return self[name]


class LinearDataModule(SyntheticDataModule):
    """A weighted sum of standard normal features and a bias, under normal noise.

    Weights of magnitude 0.5 to 2 and a bias in [-2, 2] are drawn by the seed, uniform.

    Args:
        num_samples: samples in all.
        num_features: numbers a sample.
        noise: standard deviation of the noise on the targets.
        outlier_share: share of the training and validation samples whose targets are grossly wrong, in [0, 1). The
            test is always clean.
        outlier_shift: what is added to the targets of those.
        val_size: see :class:`SyntheticDataModule`, as for the arguments below.
        test_size: see there.
        batch_size: see there.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: see there.

    Raises:
        DataError: a value out of range.

    Shape:
        Features ``(samples, num_features)`` float32, targets ``(samples, 1)`` float32.

    Example:
        >>> data = LinearDataModule(num_samples=1000, num_features=3, noise=0.5)
        >>> data.setup()
        >>> data.noise_variance, data.weight.shape
        (0.25, (3,))
    """

    dataset_name = "linear"

    def __init__(
        self,
        num_samples: int = 10_000,
        num_features: int = 1,
        noise: float = 0.5,
        outlier_share: float = 0.0,
        outlier_shift: float = 20.0,
        val_size: int | float = 0.1,
        test_size: int | float = _EVALUATION_SHARE,
        batch_size: int = 64,
        eval_batch_size: int = 10_000,
        standardize: bool = False,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        check_number("noise", noise, 0.0)
        if not _is_number(outlier_share) or not 0.0 <= outlier_share < 1.0:
            raise DataError(f"outlier_share must be at least 0 and less than 1, got {outlier_share!r}")
        check_number("outlier_shift", outlier_shift, -_LARGEST)
        super().__init__(
            num_samples, num_features, val_size, test_size, batch_size, eval_batch_size, standardize, drop_last, seed
        )
        self.noise = noise
        self.outlier_share = outlier_share
        self.outlier_shift = outlier_shift
        #: The true weights, ``(num_features,)``.
        self.weight: Floats = 3.0 * Stream(self.seed, "weight").uniform(num_features) - 1.5
        self.weight += np.where(self.weight < 0.0, -0.5, 0.5)
        #: The true bias.
        self.bias = float(4.0 * Stream(self.seed, "bias").uniform(1)[0] - 2.0)

    @property
    def noise_variance(self) -> float:
        """The least possible mean squared error of a test."""
        return self.noise**2

    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, Floats]:
        features = streams["features"].normal(count, self.num_features)
        return features, self._add_true_values(self.noise * streams["noise"].normal(count), features)

    def true_values(self, features: Floats) -> Floats:
        """The weighted sum and the bias without noise, of unscaled features.

        Shape:
            ``(samples, num_features)`` → ``(samples, 1)``.
        """
        return self._add_true_values(np.zeros(len(features)), features)[:, None]

    def _add_true_values(self, targets: Floats, features: Floats) -> Floats:
        targets += self.bias
        for column, weight in zip(features.T, self.weight, strict=True):  # no matrix product: its order of summation
            targets += weight * column  # is a matter of the machine
        return targets

    def finish(self, streams: dict[str, Stream], targets: npt.NDArray[Any]) -> None:
        if self.outlier_share > 0.0:
            wrong = streams["outliers"].uniform(len(targets)) < self.outlier_share
            targets[wrong] += np.float32(self.outlier_shift)


class PolynomialDataModule(SyntheticDataModule):
    """A polynomial of one feature, spread evenly over a range, under normal noise.

    Args:
        num_samples: samples in all.
        degree: highest power, at most 1000.
        low: lowest feature.
        high: highest feature.
        noise: standard deviation of the noise on the targets.
        val_size: see :class:`SyntheticDataModule`, as for the arguments below.
        test_size: see there.
        batch_size: see there.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: see there; draws the polynomial as well.

    Raises:
        DataError: a value out of range.

    Shape:
        Features ``(samples, 1)`` float32, targets ``(samples, 1)`` float32.
    """

    dataset_name = "polynomial"

    def __init__(
        self,
        num_samples: int = 10_000,
        degree: int = 5,
        low: float = -3.0,
        high: float = 3.0,
        noise: float = 0.5,
        val_size: int | float = 0.1,
        test_size: int | float = _EVALUATION_SHARE,
        batch_size: int = 64,
        eval_batch_size: int = 10_000,
        standardize: bool = False,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        check_positive(degree=degree)
        if degree > _LARGEST_DEGREE:
            raise DataError(f"degree must be at most {_LARGEST_DEGREE}, got {degree}")
        check_number("low", low, -_LARGEST)
        check_number("high", high, -_LARGEST)
        if low >= high:
            raise DataError(f"low must be less than high, got {low!r} and {high!r}")
        if high - low < 1e-4 * max(abs(low), abs(high), 1e-26):
            raise DataError(f"low and high must be further apart for 32-bit features, got {low!r} and {high!r}")
        check_number("noise", noise, 0.0)
        super().__init__(num_samples, 1, val_size, test_size, batch_size, eval_batch_size, standardize, drop_last, seed)
        self.degree = degree
        self.low = low
        self.high = high
        self.noise = noise
        # Of Legendre polynomials on the range mapped to [-1, 1], so that every power has its say whatever the range.
        self._legendre: Floats = 4.0 * Stream(self.seed, "coefficients").uniform(degree + 1) - 2.0

    @property
    def noise_variance(self) -> float:
        """The least possible mean squared error of a test."""
        return self.noise**2

    @property
    def coefficients(self) -> Floats:
        """The true coefficients of ``1, x, x², …, x^degree``, ``(degree + 1,)``.

        Raises:
            DataError: they exceed 64 bits, for a high degree on a narrow range.
        """
        on_domain = np.polynomial.Legendre(self._legendre, domain=[self.low, self.high])
        coefficients = np.zeros(self.degree + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            plain = on_domain.convert(kind=np.polynomial.Polynomial).coef
        if not np.isfinite(plain).all():
            raise DataError(
                f"the coefficients of degree {self.degree} from {self.low!r} to {self.high!r} exceed 64 bits: lower "
                "the degree, or widen the range"
            )
        coefficients[: len(plain)] = plain
        return coefficients

    def true_values(self, features: Floats) -> Floats:
        """The polynomial without noise, of unscaled features of any shape."""
        scaled = 2.0 * ((features - self.low) / (self.high - self.low)) - 1.0
        before, current = np.ones_like(scaled), scaled
        values: Floats = self._legendre[0] + self._legendre[1] * current
        for k in range(1, self.degree):
            following: Floats = ((2 * k + 1) * scaled * current - k * before) / (k + 1)
            before, current = current, following
            values = values + self._legendre[k + 1] * current
        return values

    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, Floats]:
        features = self.low + (self.high - self.low) * streams["features"].uniform(count, 1)
        targets = self.true_values(features[:, 0]) + self.noise * streams["noise"].normal(count)
        return features, targets


class XORDataModule(SyntheticDataModule):
    """Exclusive or: the corners of the unit square, each as often as the others, under normal noise.

    No straight line has more than three of the four corners on the right side, so a perceptron stays at 75 %.

    Args:
        num_samples: samples in all.
        noise: standard deviation of the noise on the features.
        val_size: see :class:`SyntheticDataModule`, as for the arguments below.
        test_size: see there.
        batch_size: see there.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: see there.

    Raises:
        DataError: a value out of range.

    Shape:
        Features ``(samples, 2)`` float32, targets ``(samples,)`` int64, 0 or 1.
    """

    dataset_name = "xor"
    num_classes = 2
    has_classes = True

    def __init__(
        self,
        num_samples: int = 4_000,
        noise: float = 0.05,
        val_size: int | float = 0.1,
        test_size: int | float = _EVALUATION_SHARE,
        batch_size: int = 64,
        eval_batch_size: int = 10_000,
        standardize: bool = False,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        check_number("noise", noise, 0.0)
        super().__init__(num_samples, 2, val_size, test_size, batch_size, eval_batch_size, standardize, drop_last, seed)
        self.noise = noise

    @property
    def bayes_accuracy(self) -> float:
        """The best possible accuracy of a test: that of asking for each coordinate which side of 1/2 it is on."""
        if self.noise == 0.0:
            return 1.0
        right = NormalDist().cdf(0.5 / self.noise)
        return right**2 + (1.0 - right) ** 2  # two mistakes make a right answer

    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, npt.NDArray[Any]]:
        corner = np.arange(start, start + count) % 4
        first, second = corner // 2, corner % 2
        features = np.stack([first, second], axis=1) + self.noise * streams["noise"].normal(count, 2)
        return features, first ^ second


class MoonsDataModule(SyntheticDataModule):
    """Two half circles of radius 1 that reach into each other, under normal noise.

    Args:
        num_samples: samples in all.
        noise: standard deviation of the noise on the features.
        val_size: see :class:`SyntheticDataModule`, as for the arguments below.
        test_size: see there.
        batch_size: see there.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: see there.

    Raises:
        DataError: a value out of range.

    Shape:
        Features ``(samples, 2)`` float32, targets ``(samples,)`` int64, 0 or 1, in turn.
    """

    dataset_name = "moons"
    num_classes = 2
    has_classes = True

    def __init__(
        self,
        num_samples: int = 10_000,
        noise: float = 0.1,
        val_size: int | float = 0.1,
        test_size: int | float = _EVALUATION_SHARE,
        batch_size: int = 64,
        eval_batch_size: int = 10_000,
        standardize: bool = False,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        check_number("noise", noise, 0.0)
        super().__init__(num_samples, 2, val_size, test_size, batch_size, eval_batch_size, standardize, drop_last, seed)
        self.noise = noise

    @cached_property
    def bayes_accuracy(self) -> float:
        """The best possible accuracy of a test, by integrating the larger of the two densities; exact to 1e-5."""
        noise = self.noise
        if noise < 0.04:  # the moons are 0.5 apart: further than six standard deviations from the border between them
            return 1.0
        step = noise / 12.0  # of the noise's scale, so that the grid of a great noise is no larger than that of a small
        shares = (np.arange(600) + 0.5) / 600
        cosine, sine = half_circle(shares)
        x = np.arange(-1.0 - 7.0 * noise, 2.0 + 7.0 * noise, step)
        y = np.arange(-0.5 - 7.0 * noise, 1.0 + 7.0 * noise, step)

        def density(centre_x: Floats, centre_y: Floats) -> Floats:
            along = np.exp(-0.5 * ((x[:, None] - centre_x) / noise) ** 2)
            across = np.exp(-0.5 * ((y[:, None] - centre_y) / noise) ** 2)
            product: Floats = along @ across.T / (len(shares) * 2.0 * math.pi * noise**2)
            return product

        larger = np.maximum(density(cosine, sine), density(1.0 - cosine, 0.5 - sine))
        return min(1.0, 0.5 * float(larger.sum()) * step**2)

    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, npt.NDArray[Any]]:
        labels = np.arange(start, start + count) % 2
        cosine, sine = half_circle(streams["place"].uniform(count))
        x = np.where(labels == 0, cosine, 1.0 - cosine)
        y = np.where(labels == 0, sine, 0.5 - sine)
        return np.stack([x, y], axis=1) + self.noise * streams["noise"].normal(count, 2), labels


class GaussianBlobsDataModule(SyntheticDataModule):
    """One normal distribution a class, of unit variance in every direction.

    Args:
        num_samples: samples in all; the classes come in turn.
        num_features: numbers a sample.
        num_classes: number of classes, at least 2.
        separation: root mean square of the distance between two class means, in standard deviations. The means are
            drawn by the seed.
        val_size: see :class:`SyntheticDataModule`, as for the arguments below.
        test_size: see there.
        batch_size: see there.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: see there.

    Raises:
        DataError: a value out of range, or fewer samples than classes.

    Shape:
        Features ``(samples, num_features)`` float32, targets ``(samples,)`` int64.
    """

    dataset_name = "blobs"
    has_classes = True

    def __init__(
        self,
        num_samples: int = 10_000,
        num_features: int = 20,
        num_classes: int = 5,
        separation: float = 4.0,
        val_size: int | float = 0.1,
        test_size: int | float = _EVALUATION_SHARE,
        batch_size: int = 64,
        eval_batch_size: int = 10_000,
        standardize: bool = False,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        check_positive(num_classes=num_classes)
        if num_classes < 2:
            raise DataError(f"num_classes must be at least 2, got {num_classes}")
        check_number("separation", separation, 0.0)
        super().__init__(
            num_samples, num_features, val_size, test_size, batch_size, eval_batch_size, standardize, drop_last, seed
        )
        if num_samples < num_classes:
            raise DataError(f"{num_samples} samples are fewer than the {num_classes} classes: use more data")
        self.num_classes = num_classes
        self.separation = separation
        scale = separation / np.sqrt(2.0 * num_features)
        #: The true class means, ``(num_classes, num_features)``.
        self.means: Floats = scale * Stream(self.seed, "means").normal(num_classes, num_features)

    @cached_property
    def bayes_accuracy(self) -> float:
        """The best possible accuracy of a test: the mean of the largest posterior, over a million draws; to 0.0005."""
        # In a class the scores of all classes are jointly normal: as many dimensions as classes, however many features,
        # or as features, where these are fewer.
        products = self.means @ self.means.T
        offsets = 0.5 * np.diag(products)
        spread = self.means
        if spread.shape[1] > len(spread):
            values, vectors = np.linalg.eigh(products)
            spread = np.asarray(vectors * np.sqrt(values.clip(0.0)), dtype=np.float64)
        classes = len(spread)
        draws = 1 + 1_000_000 // classes
        normal = np.random.default_rng(0)
        total = 0.0
        for own in products:
            for start in range(0, draws, _CHUNK):
                noise = normal.standard_normal((min(_CHUNK, draws - start), spread.shape[1]))
                scores = own - offsets + noise @ spread.T
                scores -= scores.max(axis=1, keepdims=True)
                total += float((1.0 / np.exp(scores).sum(axis=1)).sum())
        return total / (draws * classes)

    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, npt.NDArray[Any]]:
        labels = np.arange(start, start + count) % len(self.means)
        return self.means[labels] + streams["noise"].normal(count, self.num_features), labels


def _is_number(value: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(name: str, value: float, least: float) -> None:
    """Raise a :class:`DataError` unless ``value`` is a number from ``least`` to the largest that is safe to square."""
    if not _is_number(value) or not least <= value <= _LARGEST:
        raise DataError(f"{name} must be a number from {least:g} to {_LARGEST:g}, got {value!r}")


def _too_large(num_samples: int, num_features: int) -> DataError:
    size = num_samples * num_features * 4 // 2**30
    return DataError(f"{num_samples:,} samples do not fit in memory: {size:,} GiB of features")
