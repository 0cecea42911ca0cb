"""Made series, whose best possible forecast is known."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from datamodules.errors import DataError, check_positive
from datamodules.portable_random import Floats, Stream, half_circle
from datamodules.synthetic import SyntheticDataModule, check_number

_MOST_SINES = 1000
_NO_NOISE = 1e-15  # in its place, where there is none
_CHUNK = 1 << 15  # samples passed over at once
_SLOWEST, _FASTEST = 0.02, 0.25  # cycles a step: periods of 50 down to 4 steps


class SineDataModule(SyntheticDataModule):
    """Sums of sines under normal noise: a window of steps, and the next ones to forecast.

    The seed draws a frequency between 0.02 and 0.25 cycles a step, and an amplitude between 0.5 and 1.5, for each sine:
    these are the same in all samples. A sample is a series of its own, with phases of its own.

    Args:
        num_samples: series in all.
        window: steps that are seen.
        horizon: steps to forecast: 1 for a one-step, more for a multi-step forecast.
        num_sines: sines in the sum.
        noise: standard deviation of the noise on every step, seen and to forecast.
        val_size: see :class:`SyntheticDataModule`, as for the arguments below.
        test_size: see there.
        batch_size: see there.
        eval_batch_size: see there.
        standardize: see there.
        drop_last: see there.
        seed: see there; draws frequencies and amplitudes as well.

    Raises:
        DataError: a value out of range.

    Shape:
        Features ``(samples, window, 1)`` float32, targets ``(samples, horizon)`` float32.

    Example:
        >>> data = SineDataModule(num_samples=100, window=20, horizon=3, noise=0.5, batch_size=10)
        >>> data.setup()
        >>> data.splits.train.features.shape, data.splits.train.targets.shape, data.noise_variance
        (torch.Size([70, 20, 1]), torch.Size([70, 3]), 0.25)
    """

    dataset_name = "sines"

    def __init__(
        self,
        num_samples: int = 20_000,
        window: int = 100,
        horizon: int = 1,
        num_sines: int = 3,
        noise: float = 0.5,
        val_size: int | float = 0.1,
        test_size: int | float = 0.2,
        batch_size: int = 64,
        eval_batch_size: int = 1000,
        standardize: bool = False,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        check_positive(window=window, horizon=horizon, num_sines=num_sines)
        if num_sines > _MOST_SINES:
            raise DataError(f"num_sines must be at most {_MOST_SINES}, got {num_sines}")
        check_number("noise", noise, 0.0)
        super().__init__(
            num_samples,
            window + horizon,
            val_size,
            test_size,
            batch_size,
            eval_batch_size,
            standardize,
            drop_last,
            seed,
        )
        self.window = window
        self.horizon = horizon
        self.num_sines = num_sines
        self.noise = noise
        # Each in a part of the range that is its own: two sines of nearly the same frequency would be one.
        places = np.arange(num_sines) + Stream(self.seed, "frequencies").uniform(num_sines)
        #: Of the sines, in cycles a step, ascending, ``(num_sines,)``.
        self.frequencies: Floats = _SLOWEST + (_FASTEST - _SLOWEST) / num_sines * places
        #: Of the sines, ``(num_sines,)``.
        self.amplitudes: Floats = 0.5 + Stream(self.seed, "amplitudes").uniform(num_sines)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (self.window, 1)

    @property
    def target_shape(self) -> tuple[int, ...]:
        return (self.horizon,)

    @property
    def noise_variance(self) -> float:
        """A mean squared error that no forecast of a test can pass, however well it knows the sines."""
        return self.noise**2

    @cached_property
    def linear_mse(self) -> float:
        """The least mean squared error of a forecast that is a weighted sum of the window's steps.

        The mean over the horizon, from the covariances of the series (Wiener 1949).
        """
        # A series is a weighted sum of cosines and sines, whose weights have zero mean and no covariances. What is left
        # of their variances when the window is known is the error, beside the noise.
        angles = 2.0 * np.pi * np.arange(self.window + self.horizon)[:, None] * self.frequencies
        waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        variances = np.tile(0.5 * self.amplitudes**2, 2)
        seen, wanted = waves[: self.window], waves[self.window :]
        noise = max(self.noise**2, _NO_NOISE)
        left = np.linalg.inv(np.diag(1.0 / variances) + seen.T @ seen / noise)
        return float(self.noise**2 + np.einsum("hi,ij,hj->h", wanted, left, wanted).mean())

    def draw(self, streams: dict[str, Stream], start: int, count: int) -> tuple[Floats, Floats]:
        phases = streams["phases"].uniform(count, self.num_sines)
        series = self._add_sines(self.noise * streams["noise"].normal(count, self.window + self.horizon), phases)
        return series[:, : self.window], series[:, self.window :]

    def true_test_series(self, count: int) -> Floats:
        """The first series of the test without noise, unscaled: their windows, and what follows.

        Args:
            count: how many, or all there are.

        Returns:
            ``(count, window + horizon)``.
        """
        splits = self.splits
        first, count = len(splits.train) + len(splits.val), min(count, len(splits.test))
        stream = Stream(self.seed, "phases")
        for start in range(0, first, _CHUNK):
            stream.uniform(min(_CHUNK, first - start), self.num_sines)
        phases = stream.uniform(count, self.num_sines)
        return self._add_sines(np.zeros((count, self.window + self.horizon)), phases)

    def _add_sines(self, series: Floats, phases: Floats) -> Floats:
        steps = np.arange(self.window + self.horizon)
        for phase, frequency, amplitude in zip(phases.T, self.frequencies, self.amplitudes, strict=True):
            half_turns = 2.0 * ((phase[:, None] + frequency * steps) % 1.0)
            _, sine = half_circle(half_turns % 1.0)
            series += amplitude * np.where(half_turns < 1.0, sine, -sine)
        return series
