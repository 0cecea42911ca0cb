from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from datamodules import DataError, SineDataModule
from zoo.tasks import Regression


@pytest.fixture(autouse=True)
def no_seed_from_elsewhere(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


def ready(data):
    data.setup()
    return data


def series_of(data):
    """Window and horizon of all samples, ``(samples, steps)``, in doubles."""
    splits = [getattr(ready(data).splits, name) for name in ("train", "val", "test")]
    whole = [torch.cat([split.features[:, :, 0], split.targets], dim=1) for split in splits]
    return torch.cat(whole).double().numpy()


def waves(frequencies, steps):
    """Cosines and sines of each frequency, ``(steps, 2 * sines)``."""
    angles = 2 * np.pi * np.arange(steps)[:, None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


# What the series are.


@pytest.mark.parametrize(("window", "horizon"), [(100, 1), (20, 5), (1, 1), (3, 40)])
def test_shapes_are_those_of_window_and_horizon(window, horizon):
    data = ready(SineDataModule(400, window, horizon, seed=0))
    assert data.splits.train.features.shape == (280, window, 1)
    assert data.splits.train.targets.shape == (280, horizon)
    features, targets = next(iter(data.train_dataloader()))
    assert (features.shape, features.dtype) == ((64, window, 1), torch.float32)
    assert (targets.shape, targets.dtype) == ((64, horizon), torch.float32)
    assert data.description == f"sines: 280 train, 40 val, 80 test; samples of {window}x1"


@pytest.mark.parametrize("num_sines", [1, 3, 8])
def test_series_without_noise_are_the_sums_of_the_sines_they_state(num_sines):
    data = SineDataModule(200, 150, 50, num_sines, noise=0.0, seed=num_sines)
    series = series_of(data)
    basis = waves(data.frequencies, 200)
    weights, *_ = np.linalg.lstsq(basis, series.T, rcond=None)
    assert np.abs(basis @ weights - series.T).max() < 2e-6
    cosines, sines = weights[:num_sines], weights[num_sines:]
    np.testing.assert_allclose(
        np.hypot(cosines, sines), np.broadcast_to(data.amplitudes[:, None], (num_sines, 200)), rtol=1e-5
    )
    # One frequency less, or another, and nothing fits.
    wrong = waves(data.frequencies * 1.03, 200)
    assert np.abs(wrong @ np.linalg.lstsq(wrong, series.T, rcond=None)[0] - series.T).max() > 0.1


@pytest.mark.parametrize("samples", [100, 33_000])
def test_true_test_series_are_those_of_the_test_without_its_noise(samples):
    noisy, plain = (SineDataModule(samples, 6, 2, noise=noise, test_size=8, seed=2) for noise in (0.3, 0.0))
    series = ready(noisy).true_test_series(5)
    np.testing.assert_allclose(series, series_of(plain)[-8:-3], atol=1e-6)
    assert noisy.true_test_series(1000).shape == (8, 8)
    assert 0.0 < np.abs(series - series_of(noisy)[-8:-3]).max() < 2.0


def test_phases_are_even_and_those_of_no_two_series_or_sines_are_alike():
    data = SineDataModule(5000, 60, 20, noise=0.0, seed=1)
    weights, *_ = np.linalg.lstsq(waves(data.frequencies, 80), series_of(data).T, rcond=None)
    phases = np.arctan2(weights[:3], weights[3:]) / (2 * np.pi) % 1.0
    for phase in phases:
        shares = np.histogram(phase, bins=10, range=(0, 1))[0] / 5000
        assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / 5000)
        assert len(np.unique(phase.round(4))) > 3500  # of 10,000 places 5,000 draws take 3,935
    for first, second in ((0, 1), (0, 2), (1, 2)):
        turned = np.exp(2j * np.pi * (phases[first] - phases[second]))
        assert abs(turned.mean()) < 4 / np.sqrt(5000)


@pytest.mark.parametrize("num_sines", [1, 2, 5, 40])
def test_frequencies_and_amplitudes_are_in_range_and_apart(num_sines):
    drawn = [SineDataModule(100, num_sines=num_sines, seed=seed) for seed in range(20)]
    edges = np.linspace(0.02, 0.25, num_sines + 1)
    for data in drawn:
        assert data.frequencies.shape == data.amplitudes.shape == (num_sines,)
        assert ((edges[:-1] < data.frequencies) & (data.frequencies < edges[1:])).all()
        assert ((data.amplitudes > 0.5) & (data.amplitudes < 1.5)).all()
    amplitudes = np.array([data.amplitudes for data in drawn])
    assert amplitudes.mean() == pytest.approx(1.0, abs=4 / np.sqrt(12 * amplitudes.size))
    assert len({tuple(data.frequencies) for data in drawn}) == 20


def test_noise_has_its_variance_and_no_memory():
    clean, noisy = (series_of(SineDataModule(20_000, 15, 5, noise=noise, seed=2)) for noise in (0.0, 0.7))
    noise = noisy - clean
    assert noise.mean() == pytest.approx(0, abs=4 * 0.7 / np.sqrt(noise.size))
    assert noise.var() == pytest.approx(0.49, rel=4 * np.sqrt(2 / noise.size))
    covariances = np.cov(noise.T)
    assert np.abs(covariances - 0.49 * np.eye(20)).max() < 5 * 0.49 * np.sqrt(2 / 20_000)
    assert (noise**4).mean() / 0.49**2 == pytest.approx(3, abs=4 * np.sqrt(96 / noise.size))


# The limits.


@pytest.mark.parametrize("horizon", [1, 4])
def test_noise_variance_is_what_a_forecast_that_knows_the_sines_reaches(horizon):
    data = SineDataModule(40_000, 10, horizon, noise=0.3, test_size=0.5, seed=3)
    clean = SineDataModule(40_000, 10, horizon, noise=0.0, test_size=0.5, seed=3)
    oracle = ready(clean).splits.test.targets.double()
    errors = (ready(data).splits.test.targets.double() - oracle).square()
    assert data.noise_variance == pytest.approx(0.09, abs=1e-12)
    assert errors.mean().item() == pytest.approx(0.09, rel=4 * np.sqrt(2 / errors.numel()))


@pytest.mark.parametrize("noise", [0.0, 0.5, 2])
def test_linear_mse_by_hand(noise):
    """One sine of amplitude A, one step seen: variance A²/2 + σ², covariance at lag k A²/2 cos 2πfk."""
    for horizon in (1, 3):
        data = SineDataModule(100, 1, horizon, 1, noise=noise, seed=4)
        [frequency], [amplitude] = data.frequencies, data.amplitudes
        power = amplitude**2 / 2
        variance = power + noise**2
        left = [
            variance - (power * np.cos(2 * np.pi * frequency * lag)) ** 2 / variance for lag in range(1, horizon + 1)
        ]
        assert data.linear_mse == pytest.approx(np.mean(left), rel=1e-12)


def test_linear_mse_of_one_sine_without_noise_is_zero_from_two_steps_on():
    """x(t + 1) = 2 cos(2πf) x(t) - x(t - 1)."""
    assert SineDataModule(100, 1, num_sines=1, noise=0.0, seed=0).linear_mse > 0.01
    assert SineDataModule(100, 2, num_sines=1, noise=0.0, seed=0).linear_mse == pytest.approx(0, abs=1e-12)
    assert SineDataModule(100, 5, num_sines=3, noise=0.0, seed=0).linear_mse > 1e-5
    assert SineDataModule(100, 6, num_sines=3, noise=0.0, seed=0).linear_mse == pytest.approx(0, abs=1e-9)
    assert SineDataModule(100, 50, num_sines=3, noise=0.0, seed=0).linear_mse == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("window", "horizon", "num_sines", "noise"), [(30, 1, 3, 0.5), (8, 6, 2, 0.2), (12, 2, 5, 1.5)]
)
def test_linear_mse_is_what_a_least_squares_fit_reaches(window, horizon, num_sines, noise):
    data = SineDataModule(40_000, window, horizon, num_sines, noise, test_size=0.5, seed=5)
    train, test = ready(data).splits.train, data.splits.test
    weights, *_ = np.linalg.lstsq(train.features[:, :, 0].double().numpy(), train.targets.double().numpy(), rcond=None)
    errors = (test.features[:, :, 0].double().numpy() @ weights - test.targets.double().numpy()) ** 2
    # Weights fitted to 16,000 series are worse than the best by window / 16,000 of the error.
    assert errors.mean() == pytest.approx(data.linear_mse, rel=4 * np.sqrt(2 / len(errors)) + window / 16_000)
    assert data.linear_mse > data.noise_variance


def test_linear_mse_falls_towards_the_noise_as_the_window_grows():
    limits = [SineDataModule(100, window, seed=0).linear_mse for window in (1, 2, 5, 10, 30, 100, 300)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 2 * 0.25
    # A weight for the cosine and one for the sine of each of 3 frequencies cost about 6 / window of the noise.
    assert limits[-1] == pytest.approx(0.25 * (1 + 6 / 300), rel=0.03)
    assert limits[-1] > 0.25


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"num_sines": 1001}, "num_sines must be at most 1000, got 1001"),
        ({"horizon": -1}, "horizon must be an integer of at least 1, got -1"),
        ({"num_sines": 0}, "num_sines must be an integer of at least 1, got 0"),
        ({"window": 10.0}, "window must be an integer of at least 1, got 10.0"),
        ({"noise": -0.1}, r"noise must be a number from 0 to 1e\+30, got -0.1"),
        ({"noise": float("nan")}, r"noise must be a number from 0 to 1e\+30, got nan"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": "1"}, "seed must be an integer of at least 0, got '1'"),
        ({"window": 10**12}, "20,000 samples do not fit in memory: "),
        ({"horizon": 10**12}, "20,000 samples do not fit in memory: "),
    ],
    ids=str,
)
def test_wrong_argument_is_refused_at_once(arguments, told):
    with pytest.raises(DataError, match=f"^{told}"):
        SineDataModule(**arguments)


# In a Trainer.


def test_linear_network_comes_close_to_the_limit_of_linear_forecasts(tmp_path):
    torch.manual_seed(0)
    data = SineDataModule(8000, 20, 2, noise=np.float64(0.4), test_size=0.25, batch_size=100, seed=6)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=8,
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
    model = Regression(network=network, optimizer=partial(torch.optim.Adam, lr=0.005))
    trainer.fit(model, data)
    [metrics] = trainer.test(model, data, verbose=False)
    assert metrics["test/mse"] == pytest.approx(data.linear_mse, rel=4 * np.sqrt(2 / 2000) + 0.03)
    assert metrics["test/mse"] > data.noise_variance
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert saved == dict(data.hparams)
    assert {type(value) for value in saved.values()} <= {int, float, bool}
    assert {name: saved[name] for name in ("num_samples", "window", "horizon", "num_sines", "noise", "seed")} == {
        "num_samples": 8000,
        "window": 20,
        "horizon": 2,
        "num_sines": 3,
        "noise": 0.4,
        "seed": 6,
    }
    again = SineDataModule.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    np.testing.assert_array_equal(series_of(again), series_of(data))
