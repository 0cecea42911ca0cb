import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from datamodules import (
    DataError,
    GaussianBlobsDataModule,
    LinearDataModule,
    MoonsDataModule,
    PolynomialDataModule,
    SineDataModule,
    XORDataModule,
    synthetic,
)
from zoo.tasks import BinaryClassification, MulticlassClassification, Regression

MODULES = [
    LinearDataModule,
    PolynomialDataModule,
    SineDataModule,
    XORDataModule,
    MoonsDataModule,
    GaussianBlobsDataModule,
]
NOISY = MODULES[:-1]
any_module = pytest.mark.parametrize("module", MODULES)
noisy_module = pytest.mark.parametrize("module", NOISY)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """No seed from elsewhere; and tensors this small gain nothing from threads."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ready(data):
    data.setup()
    return data


def everything(data):
    """Features and targets of all splits, one after the other."""
    splits = [getattr(data.splits, name) for name in ("train", "val", "test")]
    return torch.cat([split.features for split in splits]), torch.cat([split.targets for split in splits])


def samples(data):
    """Like everything, as NumPy's doubles, targets flat."""
    features, targets = everything(ready(data))
    return features.double().numpy(), targets.flatten().numpy()


def digest(data):
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in everything(ready(data)))).hexdigest()


# The same data everywhere and for ever.

PINNED = {
    "line": (
        LinearDataModule,
        {"num_samples": 1000, "seed": 0},
        "432a813c81eeb2f4d6986619e22dae54229122fc5180779890c3afdfc0ba37eb",
    ),
    "line with outliers": (
        LinearDataModule,
        {"num_samples": 1000, "num_features": 7, "outlier_share": 0.1, "seed": 1},
        "27f55540938b48dd3bdd2ef7b5ff6f544f24b633adfe4566434e08f4d1ccb76a",
    ),
    "polynomial": (
        PolynomialDataModule,
        {"num_samples": 1000, "seed": 0},
        "0179a6f53adcf1f9599619a9a4c01582258689b96f4d4430b409ef1f9fb9e8c5",
    ),
    "polynomial elsewhere": (
        PolynomialDataModule,
        {"num_samples": 1000, "degree": 9, "low": 0.1, "high": 7.0, "seed": 2**70},
        "356fd94f562fe01d20a6f9ad3d07913105f8c4cce246f686ac9b22cbb161d177",
    ),
    "xor": (
        XORDataModule,
        {"num_samples": 1000, "seed": 0},
        "862fb569b19b4abb607fd2acf4a26ef15179b173c3e53f72d4461c68e0acc880",
    ),
    "moons": (
        MoonsDataModule,
        {"num_samples": 1000, "seed": 0},
        "ef0d43c4376816486789836175775822dfbc587befc8c2cdcbd0ff3fc9776672",
    ),
    "blobs": (
        GaussianBlobsDataModule,
        {"num_samples": 1000, "seed": 0},
        "6a4b53d5e6d1f98c19fd5ed12667c7e4c6ad8e39b38717c96e8f8966d9146b84",
    ),
    "large blobs": (
        GaussianBlobsDataModule,
        {"num_samples": 40_000, "num_features": 3, "num_classes": 7, "seed": 5},
        "82bd7296ff74a7c375216e2e291bee148ba3edef94d05b7017f7e956c639f085",
    ),
    "sines": (
        SineDataModule,
        {"num_samples": 1000, "seed": 0},
        "28f7758834c27ab37b5a9eaec4394046b0ba60d180b7009e2a72154087817702",
    ),
    "sines without noise, some steps ahead": (
        SineDataModule,
        {"num_samples": 40_000, "window": 3, "horizon": 4, "num_sines": 7, "noise": 0.0, "seed": 2**70},
        "eb2caa8420092b357a2808d4df5bd594ba5b499820921cf89ed53638eb68e00d",
    ),
}


@pytest.mark.parametrize(("module", "arguments", "expected"), PINNED.values(), ids=PINNED)
def test_data_are_these_very_ones(module, arguments, expected):
    assert digest(module(**arguments)) == expected


PRINT_DIGESTS = """
import hashlib, json, sys, datamodules
for module, arguments in json.load(sys.stdin):
    data = getattr(datamodules, module)(**arguments)
    data.setup()
    splits = [getattr(data.splits, name) for name in ("train", "val", "test")]
    values = [split.features for split in splits] + [split.targets for split in splits]
    print(hashlib.sha256(b"".join(part.numpy().tobytes() for part in values)).hexdigest())
"""


def test_data_are_the_same_on_another_processor_with_other_threads():
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(extensions),
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "3"),
    }
    cases = json.dumps([(module.__name__, arguments) for module, arguments, _ in PINNED.values()])
    command = [sys.executable, "-c", PRINT_DIGESTS]
    printed = subprocess.run(command, input=cases, env=environment, text=True, capture_output=True, check=True)
    assert printed.stdout.split() == [expected for *_, expected in PINNED.values()]


@pytest.mark.parametrize(
    ("module", "arguments", "sizes"),
    [
        (LinearDataModule, {"num_features": 2}, (33_000, 70_000)),
        (LinearDataModule, {"num_features": 200}, (6_000, 12_000)),  # wide samples are made fewer at once
        (PolynomialDataModule, {}, (33_000, 70_000)),
        (SineDataModule, {"window": 4}, (33_000, 70_000)),
        (SineDataModule, {}, (6_000, 12_000)),
        (XORDataModule, {}, (33_001, 70_000)),
        (MoonsDataModule, {}, (33_001, 70_000)),
        (GaussianBlobsDataModule, {"num_features": 2}, (33_001, 70_000)),
    ],
)
def test_longer_data_begin_with_the_shorter_ones(module, arguments, sizes):
    short, long = (everything(ready(module(size, seed=3, **arguments))) for size in sizes)
    for before, after in zip(short, long, strict=True):
        assert torch.equal(before, after[: sizes[0]])
    assert len(long[0].unique(dim=0)) > 0.998 * sizes[1]  # and do not repeat themselves


@any_module
@pytest.mark.parametrize(
    ("val_size", "test_size", "expected"),
    [(0.1, 0.2, (700, 100, 200)), (1, 300, (699, 1, 300)), (0.3, 1, (699, 300, 1))],
)
def test_splits_are_the_first_the_next_and_the_last_samples(module, val_size, test_size, expected):
    data = ready(module(1000, val_size=val_size, test_size=test_size, seed=1))
    assert tuple(len(getattr(data.splits, name)) for name in ("train", "val", "test")) == expected
    for ours, all_of_them in zip(everything(data), everything(ready(module(1000, seed=1))), strict=True):
        assert torch.equal(ours, all_of_them)


@any_module
def test_data_are_a_function_of_the_seed(module, monkeypatch):
    digests = {seed: digest(module(500, seed=seed)) for seed in (0, 7, 8, 2**70)}
    assert len(set(digests.values())) == 4
    torch.manual_seed(1)
    assert digest(module(500)) == digests[0]
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert digest(module(500)) == digests[7]
    assert digest(module(500, seed=8)) == digests[8]


@pytest.mark.parametrize(
    ("module", "shape", "kind"),
    [
        (partial(LinearDataModule, num_features=3), (3,), torch.float32),
        (PolynomialDataModule, (1,), torch.float32),
        (partial(SineDataModule, window=9), (9, 1), torch.float32),
        (XORDataModule, (2,), torch.int64),
        (MoonsDataModule, (2,), torch.int64),
        (partial(GaussianBlobsDataModule, num_features=4), (4,), torch.int64),
    ],
)
def test_shapes_and_types_are_those_that_losses_take(module, shape, kind):
    features, targets = next(iter(ready(module(400, seed=0)).train_dataloader()))
    assert (features.shape, features.dtype) == ((64, *shape), torch.float32)
    assert (targets.shape, targets.dtype) == ((64, 1) if kind == torch.float32 else (64,), kind)


# Arguments.

SETTINGS = [
    (LinearDataModule, {"num_features": 3, "noise": 0.1, "outlier_share": 0.2, "outlier_shift": -5.0}),
    (PolynomialDataModule, {"degree": 3, "low": -1.0, "high": 4.0, "noise": 0.0}),
    (SineDataModule, {"window": 7, "horizon": 2, "num_sines": 4, "noise": 0.25}),
    (XORDataModule, {"noise": 0.2}),
    (MoonsDataModule, {"noise": 0.2}),
    (GaussianBlobsDataModule, {"num_features": 3, "num_classes": 4, "separation": 2.0}),
]


@pytest.mark.parametrize(("module", "arguments"), SETTINGS)
def test_hyperparameters_make_the_same_module_again(module, arguments):
    common = {
        "num_samples": 300,
        "val_size": 20,
        "test_size": 0.3,
        "batch_size": 10,
        "eval_batch_size": 20,
        "standardize": True,
        "drop_last": False,
        "seed": 5,
    }
    data = module(**common, **arguments)
    assert dict(data.hparams) == {**common, **arguments}
    again = module(**data.hparams)
    assert dict(again.hparams) == dict(data.hparams)
    assert digest(again) == digest(data)


@pytest.mark.parametrize(("module", "arguments"), SETTINGS)
def test_hyperparameters_are_plain_values(module, arguments, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    doubles = {name: np.float64(value) for name, value in arguments.items() if isinstance(value, float)}
    data = module(val_size=np.float64(0.25), **{**arguments, **doubles})
    assert {type(value) for value in data.hparams.values()} <= {int, float, bool}
    assert (data.hparams["val_size"], data.hparams["seed"]) == (0.25, 9)


NO_COUNTS = [0, -1, 1.5, 1000.0, True, None, "5", np.int64(1000), float("nan")]
NO_NUMBERS = [-1, float("nan"), float("inf"), 1e31, 10**400, "0.1", None, True, 1j, np.float32(0.1), torch.tensor(0.1)]


@any_module
@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_num_samples_that_is_no_count_is_refused(module, value):
    with pytest.raises(DataError, match=r"^num_samples must be an integer of at least 1, got "):
        module(num_samples=value)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (LinearDataModule, "num_features"),
        (PolynomialDataModule, "degree"),
        (SineDataModule, "window"),
        (SineDataModule, "horizon"),
        (SineDataModule, "num_sines"),
        (GaussianBlobsDataModule, "num_features"),
        (GaussianBlobsDataModule, "num_classes"),
    ],
)
@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_other_size_that_is_no_count_is_refused(module, name, value):
    with pytest.raises(DataError, match=f"^{name} must be an integer of at least 1, got "):
        module(**{name: value})


@noisy_module
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_noise_that_is_no_number_is_refused(module, value):
    with pytest.raises(DataError, match=r"^noise must be a number from 0 to 1e\+30, got "):
        module(noise=value)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_separation_that_is_no_number_is_refused(value):
    with pytest.raises(DataError, match=r"^separation must be a number from 0 to 1e\+30, got "):
        GaussianBlobsDataModule(separation=value)


@any_module
@pytest.mark.parametrize("seed", [-1, "0", 1.0, True, np.int64(3), float("nan")], ids=repr)
def test_seed_that_is_none_is_refused(module, seed):
    with pytest.raises(DataError, match=r"^seed must be an integer of at least 0, got "):
        module(seed=seed)


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        (LinearDataModule, {"outlier_share": 1.0}, "outlier_share must be at least 0 and less than 1, got 1.0"),
        (LinearDataModule, {"outlier_share": -0.1}, "outlier_share must be at least 0 and less than 1, got -0.1"),
        (
            LinearDataModule,
            {"outlier_share": float("nan")},
            "outlier_share must be at least 0 and less than 1, got nan",
        ),
        (LinearDataModule, {"outlier_share": "1"}, "outlier_share must be at least 0 and less than 1, got '1'"),
        (LinearDataModule, {"outlier_shift": float("inf")}, r"outlier_shift must be a number from -1e\+30 .* got inf"),
        (LinearDataModule, {"outlier_shift": None}, r"outlier_shift must be a number from -1e\+30 to 1e\+30, got None"),
        (PolynomialDataModule, {"degree": 1001}, "degree must be at most 1000, got 1001"),
        (PolynomialDataModule, {"low": 3.0}, "low must be less than high, got 3.0 and 3.0"),
        (PolynomialDataModule, {"low": 4, "high": -4}, "low must be less than high, got 4 and -4"),
        (PolynomialDataModule, {"low": float("nan")}, r"low must be a number from -1e\+30 to 1e\+30, got nan"),
        (PolynomialDataModule, {"high": float("nan")}, r"high must be a number from -1e\+30 to 1e\+30, got nan"),
        (PolynomialDataModule, {"low": -float("inf")}, r"low must be a number from -1e\+30 to 1e\+30, got -inf"),
        (PolynomialDataModule, {"low": "a", "high": "b"}, r"low must be a number from -1e\+30 to 1e\+30, got 'a'"),
        (PolynomialDataModule, {"low": 1.0, "high": 1.0 + 1e-9}, "low and high must be further apart for 32-bit"),
        (PolynomialDataModule, {"low": 0.0, "high": 1e-40}, "low and high must be further apart for 32-bit"),
        (GaussianBlobsDataModule, {"num_classes": 1}, "num_classes must be at least 2, got 1"),
        (GaussianBlobsDataModule, {"num_classes": 10**12}, "10000 samples are fewer than the 1000000000000 classes"),
        (XORDataModule, {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        (MoonsDataModule, {"eval_batch_size": 2.0}, "eval_batch_size must be an integer of at least 1, got 2.0"),
    ],
)
def test_wrong_argument_is_refused_at_once(module, arguments, told):
    with pytest.raises(DataError, match=f"^{told}"):
        module(**arguments)


@any_module
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_samples": 1}, "val_size=0.1 makes 0 of 1 samples|1 samples are fewer than the 5 classes"),
        ({"num_samples": 2}, "val_size=0.1 makes 0 of 2 samples|2 samples are fewer than the 5 classes"),
        ({"num_samples": 1000, "val_size": 0.5, "test_size": 0.5}, "of 1000 samples 1000 are for validation and test"),
        ({"num_samples": 1000, "val_size": 0.9, "test_size": 600}, "of 1000 samples 1500 are for validation and test"),
        ({"val_size": "a tenth"}, "val_size must be a share between 0 and 1 or a number of samples, got 'a tenth'"),
        ({"test_size": float("nan")}, "test_size must be a share between 0 and 1 or a number of samples, got nan"),
        ({"num_samples": 1000, "batch_size": 701}, "the training split has 700 samples, fewer than one batch of 701"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(module, arguments, told):
    with pytest.raises(DataError, match=f"^({told})"):
        module(**arguments).setup()


@any_module
def test_batch_larger_than_the_split_will_do_if_nothing_is_dropped(module):
    data = ready(module(100, batch_size=10**30, drop_last=False, seed=0))
    assert [len(targets) for _, targets in data.train_dataloader()] == [70]


@any_module
@pytest.mark.parametrize("num_samples", [10**15, 10**30, 10**400], ids=["10**15", "10**30", "10**400"])
def test_more_samples_than_memory_holds_are_refused(module, num_samples):
    with pytest.raises(DataError, match=r"^10*(,000)+ samples do not fit in memory: [0-9,]+ GiB of features$"):
        module(num_samples=num_samples)


@pytest.mark.parametrize("module", [LinearDataModule, GaussianBlobsDataModule])
@pytest.mark.parametrize("num_features", [10**12, 10**30])
def test_more_features_than_memory_holds_are_refused(module, num_features):
    with pytest.raises(DataError, match=r"^10,000 samples do not fit in memory: 37,252,902[0-9,]* GiB"):
        module(num_features=num_features)


@any_module
def test_samples_that_only_a_promise_of_the_kernel_holds_are_refused(module):
    memory = synthetic.memory()
    assert 2**26 < memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with pytest.raises(DataError, match="do not fit in memory"):
        module(num_samples=memory // 11)  # 12 bytes a sample at least


@any_module
def test_memory_that_gives_out_on_the_way_is_an_error_of_ours(module, monkeypatch):
    def draw(*_):
        raise MemoryError

    monkeypatch.setattr(module, "draw", draw)
    with pytest.raises(DataError, match="1,000 samples do not fit in memory: 0 GiB"):
        module(1000, seed=0).setup()


@pytest.mark.parametrize(
    "module", [partial(LinearDataModule, 3_000_000, outlier_share=0.1), partial(LinearDataModule, 600, 10**4)]
)
def test_making_data_takes_little_memory_beside_them(module):
    data = module(batch_size=4, seed=0)
    tracemalloc.start()
    data.setup()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(part.nbytes for part in everything(data))
    assert size <= peak < size + 2**25


def test_constant_feature_is_refused_when_standardizing():
    with pytest.raises(DataError, match="feature 0 is constant over the training split"):
        # Of two samples one is for training.
        LinearDataModule(3, val_size=1, test_size=1, batch_size=1, standardize=True).setup()


@pytest.mark.parametrize(
    ("num_classes", "told"), [(71, "has 70 samples, fewer than the 71 classes"), (101, "100 samples")]
)
def test_fewer_samples_than_classes_are_refused(num_classes, told):
    with pytest.raises(DataError, match=told):
        GaussianBlobsDataModule(100, num_classes=num_classes, batch_size=1, seed=0).setup()


def test_as_many_samples_as_classes_will_do():
    data = ready(GaussianBlobsDataModule(100, num_classes=70, seed=0))
    assert sorted(data.splits.train.targets.tolist()) == list(range(70))


@any_module
def test_standardized_data_are(module):
    data = ready(module(4000, standardize=True, seed=0, batch_size=2800))
    features = next(iter(data.train_dataloader()))[0].flatten(0, -2)  # all steps of a series are one feature
    assert features.mean(dim=0).abs().max() < 1e-5
    assert (features.std(dim=0, correction=0) - 1).abs().max() < 1e-5


# Regression, and its least possible error.


def linear(data):
    features, targets = samples(data)
    return targets - features @ data.weight - data.bias


def polynomial(data):
    features, targets = samples(data)
    return targets - data.true_values(features[:, 0])


@pytest.mark.parametrize(
    ("residuals", "data"),
    [
        (linear, LinearDataModule(100_000, noise=0.5, seed=0)),
        (linear, LinearDataModule(100_000, 20, noise=3.0, seed=1)),
        (linear, LinearDataModule(100_000, noise=1e6, seed=2)),
        (polynomial, PolynomialDataModule(100_000, noise=0.5, seed=0)),
        (polynomial, PolynomialDataModule(100_000, degree=1, low=90.0, high=100.0, noise=2.0, seed=1)),
        (polynomial, PolynomialDataModule(100_000, degree=30, low=-0.1, high=0.1, seed=2)),
    ],
)
def test_noise_variance_is_that_of_the_residuals(residuals, data):
    rest = residuals(data)
    assert data.noise_variance == data.noise**2
    assert rest.var() == pytest.approx(data.noise_variance, rel=4 * np.sqrt(2 / len(rest)))
    assert rest.mean() == pytest.approx(0, abs=4 * data.noise / np.sqrt(len(rest)))


@pytest.mark.parametrize(
    ("residuals", "data"),
    [(linear, LinearDataModule(1000, 20, noise=0, seed=0)), (polynomial, PolynomialDataModule(1000, noise=0, seed=0))],
)
def test_without_noise_nothing_is_left(residuals, data):
    assert data.noise_variance == 0
    assert np.abs(residuals(data)).max() < 1e-5  # of targets up to 20, in 32 bits


def test_least_squares_recover_weights_and_bias():
    data = LinearDataModule(100_000, 5, seed=4)
    features, targets = samples(data)
    ones = np.ones((len(features), 1))
    found = np.linalg.lstsq(np.hstack([features, ones]), targets, rcond=None)[0]
    assert found == pytest.approx([*data.weight, data.bias], abs=4.5 * data.noise / np.sqrt(len(features)))


def test_weights_are_drawn_by_the_seed_from_minus_two_to_two():
    drawn = [LinearDataModule(num_features=2, seed=seed) for seed in range(500)]
    numbers = np.array([[*data.weight, data.bias] for data in drawn])
    assert (numbers.min(), numbers.max()) == pytest.approx((-2, 2), abs=0.02)
    assert np.abs(numbers.mean(axis=0)).max() < 4 * np.sqrt(4 / 3 / 500)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 4 / np.sqrt(500)


def test_true_values_of_a_line_are_the_weighted_sum_and_the_bias():
    data = LinearDataModule(10, num_features=3, seed=5)
    features = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(data.true_values(features), (features @ data.weight + data.bias)[:, None], rtol=1e-12)


def test_features_of_a_line_are_standard_normal_and_unrelated():
    features, _ = samples(LinearDataModule(100_000, 3, seed=0))
    assert np.abs(np.cov(features.T) - np.eye(3)).max() < 4 * np.sqrt(2 / 100_000)
    assert np.abs(features.mean(axis=0)).max() < 4 / np.sqrt(100_000)


@pytest.mark.parametrize(
    ("degree", "tolerance"), [(1, 1e-13), (2, 1e-13), (5, 1e-12), (10, 1e-11), (20, 1e-8), (30, 1e-3)]
)
@pytest.mark.parametrize(("low", "high"), [(-3, 3), (-0.01, 0.01), (-50, 50), (-2, 3)])
def test_coefficients_agree_with_the_true_values(degree, tolerance, low, high):
    data = PolynomialDataModule(degree=degree, low=low, high=high, seed=degree)
    x = np.linspace(low, high, 501)
    assert data.coefficients.shape == (degree + 1,)
    assert np.polynomial.polynomial.polyval(x, data.coefficients) == pytest.approx(data.true_values(x), abs=tolerance)


@pytest.mark.parametrize(("degree", "high"), [(30, 1e-12), (12, 1e-29), (1000, 1e-3)])
def test_coefficients_beyond_64_bits_are_refused(degree, high):
    data = PolynomialDataModule(degree=degree, low=0.0, high=high, seed=0)
    with pytest.raises(
        DataError, match=f"^the coefficients of degree {degree} from 0.0 to {high} exceed 64 bits: lower"
    ):
        data.coefficients  # noqa: B018
    assert np.abs(data.true_values(np.linspace(0.0, high, 100))).max() < 2 * (degree + 1)


def test_true_values_are_those_of_legendre_polynomials_up_to_the_highest_degree():
    data = PolynomialDataModule(degree=1000, low=-3.0, high=3.0, seed=0)
    x = np.linspace(-3.0, 3.0, 300)
    expected = np.polynomial.legendre.legval(x / 3.0, data._legendre)
    assert data.true_values(x) == pytest.approx(expected, abs=1e-9)


def test_true_values_are_of_a_line_and_a_parabola():
    line, parabola = (PolynomialDataModule(degree=degree, low=1.0, high=5.0, seed=0) for degree in (1, 2))
    a, b, c = parabola.coefficients
    x = np.array([[1.0, 2.5], [3.0, 5.0]])
    assert parabola.true_values(x) == pytest.approx(a + b * x + c * x**2, abs=1e-12)
    assert np.diff(line.true_values(np.array([1.0, 3.0, 5.0])), n=2) == pytest.approx(0, abs=1e-12)


def test_features_of_a_polynomial_are_even_over_the_range():
    features, _ = samples(PolynomialDataModule(100_000, low=-1.0, high=4.0, seed=0))
    shares = np.histogram(features, bins=10, range=(-1.0, 4.0))[0] / 100_000
    assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / 100_000)
    assert shares.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shift", [20.0, -3.0])
def test_outliers_are_in_training_and_validation_alone(shift):
    clean = ready(LinearDataModule(100_000, 2, seed=0))
    spoilt = ready(LinearDataModule(100_000, 2, outlier_share=0.2, outlier_shift=shift, seed=0))
    assert torch.equal(everything(clean)[0], everything(spoilt)[0])
    assert torch.equal(clean.splits.test.targets, spoilt.splits.test.targets)
    for name in ("train", "val"):
        change = (getattr(spoilt.splits, name).targets - getattr(clean.splits, name).targets).flatten()
        wrong = change != 0
        assert (change[wrong] - shift).abs().max() < 1e-5
        assert wrong.double().mean().item() == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / len(change)))
    assert spoilt.noise_variance == 0.25


# Classification, and its best possible accuracy.


def spread_of(accuracy, count):
    """Three standard errors."""
    return 3 * np.sqrt(accuracy * (1 - accuracy) / count) + 1e-6


def rule_of_xor(features, noise):
    """The classes that the true densities speak for."""
    x, y = features.T
    density = [
        sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * noise**2)) for a, b in corners)
        for corners in (((0, 0), (1, 1)), ((0, 1), (1, 0)))
    ]
    return (density[1] > density[0]).astype(int)


def rule_of_moons(features, noise):
    angles = np.pi * (np.arange(300) + 0.5) / 300
    densities = []
    for a, b in ((np.cos(angles), np.sin(angles)), (1 - np.cos(angles), 0.5 - np.sin(angles))):
        squares = [(part[:, None, 0] - a) ** 2 + (part[:, None, 1] - b) ** 2 for part in np.array_split(features, 20)]
        densities.append(np.concatenate([np.exp(-square / (2 * noise**2)).sum(axis=1) for square in squares]))
    return (densities[1] > densities[0]).astype(int)


def rule_of_blobs(features, means):
    return (features @ means.T - 0.5 * (means**2).sum(axis=1)).argmax(axis=1)


@pytest.mark.parametrize("noise", [0.2, 0.3, 0.7, 2.0])
def test_bayes_accuracy_of_xor_is_that_of_the_true_rule(noise):
    random = np.random.default_rng(0)
    corners = random.integers(2, size=(400_000, 2))
    features = corners + noise * random.standard_normal(corners.shape)
    right = (rule_of_xor(features, noise) == corners[:, 0] ^ corners[:, 1]).mean()
    accuracy = XORDataModule(noise=noise).bayes_accuracy
    assert right == pytest.approx(accuracy, abs=spread_of(accuracy, len(corners)))


@pytest.mark.parametrize("noise", [0.1, 0.2, 0.5, 1.0, 3.0])
def test_bayes_accuracy_of_moons_is_that_of_the_true_rule(noise):
    random = np.random.default_rng(1)
    labels, angles = random.integers(2, size=20_000), np.pi * random.random(20_000)
    x = np.where(labels == 0, np.cos(angles), 1 - np.cos(angles))
    y = np.where(labels == 0, np.sin(angles), 0.5 - np.sin(angles))
    features = np.stack([x, y], axis=1) + noise * random.standard_normal((20_000, 2))
    accuracy = MoonsDataModule(noise=noise).bayes_accuracy
    assert (rule_of_moons(features, noise) == labels).mean() == pytest.approx(accuracy, abs=spread_of(accuracy, 20_000))


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_bayes_accuracy_of_moons_is_exact(noise):
    """Against Simpson's rule over x, and over y the places where one density overtakes the other."""
    from scipy.special import erf

    angles = np.pi * (np.arange(1000) + 0.5) / 1000
    upper, lower = (np.cos(angles), np.sin(angles)), (1 - np.cos(angles), 0.5 - np.sin(angles))
    x = np.linspace(-1 - 6.5 * noise, 2 + 6.5 * noise, 301)
    y = np.linspace(-0.5 - 6.5 * noise, 1 + 6.5 * noise, 401)

    def densities(moon):
        along = np.exp(-0.5 * ((x[:, None] - moon[0]) / noise) ** 2) / (noise * np.sqrt(2 * np.pi) * len(angles))
        below = 0.5 * (1 + erf((y[:, None] - moon[1]) / (noise * np.sqrt(2))))
        across = np.exp(-0.5 * ((y[:, None] - moon[1]) / noise) ** 2)
        return along @ across.T, along @ below.T

    (first, first_below), (second, second_below) = densities(upper), densities(lower)
    ahead, difference = first - second, first_below - second_below
    # The integral of |p - q| over y: the sum of the steps of P - Q between the zeros of p - q, found by interpolation.
    totals = np.zeros(len(x))
    for row in range(len(x)):
        change = np.flatnonzero(np.sign(ahead[row, 1:]) != np.sign(ahead[row, :-1]))
        share = ahead[row, change] / (ahead[row, change] - ahead[row, change + 1])
        # At a zero of its slope, P - Q is a parabola's summit.
        step = y[1] - y[0]
        summit = difference[row, change] + 0.5 * share * step * ahead[row, change] / (noise * np.sqrt(2 * np.pi))
        totals[row] = np.abs(np.diff(np.concatenate([[0.0], summit, difference[row, -1:]]))).sum()
    weights = np.ones(len(x))
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    distance = (weights * totals).sum() * (x[1] - x[0]) / 3
    assert MoonsDataModule(noise=noise).bayes_accuracy == pytest.approx(0.5 + 0.25 * distance, abs=1e-5)


@pytest.mark.parametrize("module", [XORDataModule, MoonsDataModule])
@pytest.mark.parametrize(
    ("noise", "expected"),
    [(0, 1), (0.0, 1), (5e-324, 1), (1e-9, 1), (0.03, 1), (1e3, 0.5), (1e6, 0.5), (1e30, 0.5)],
)
def test_bayes_accuracy_of_little_and_of_great_noise(module, noise, expected):
    tracemalloc.start()
    accuracy = module(noise=noise).bayes_accuracy
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert accuracy == pytest.approx(expected, abs=3e-4)
    assert accuracy <= 1
    assert peak < 2**25


def test_bayes_accuracy_falls_as_the_noise_grows():
    for module in (XORDataModule, MoonsDataModule):
        accuracies = [module(noise=noise).bayes_accuracy for noise in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 100.0)]
        assert accuracies == sorted(accuracies, reverse=True)
        assert len(set(accuracies)) == len(accuracies)


@pytest.mark.parametrize(("num_features", "separation"), [(1, 2.0), (2, 1.0), (3, 3.0), (20, 4.0), (500, 2.0)])
def test_bayes_accuracy_of_two_blobs_is_that_of_their_distance(num_features, separation):
    data = GaussianBlobsDataModule(num_features=num_features, num_classes=2, separation=separation, seed=1)
    distance = np.linalg.norm(data.means[0] - data.means[1])
    assert data.bayes_accuracy == pytest.approx(NormalDist().cdf(distance / 2), abs=1e-3)


@pytest.mark.parametrize("num_classes", [3, 5, 9])
def test_bayes_accuracy_of_blobs_on_a_line_is_that_of_their_gaps(num_classes):
    data = GaussianBlobsDataModule(num_features=1, num_classes=num_classes, seed=2)
    gaps = np.diff(np.sort(data.means[:, 0]))
    expected = (1 + sum(2 * NormalDist().cdf(gap / 2) - 1 for gap in gaps)) / num_classes
    assert data.bayes_accuracy == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("num_features", "num_classes"), [(20, 5), (5, 5), (4, 5), (2, 5), (2, 30), (30, 20)], ids=str)
def test_bayes_accuracy_of_blobs_is_that_of_the_true_rule(num_features, num_classes):
    data = GaussianBlobsDataModule(num_features=num_features, num_classes=num_classes, separation=3.0, seed=3)
    random = np.random.default_rng(2)
    labels = random.integers(num_classes, size=100_000)
    features = data.means[labels] + random.standard_normal((len(labels), num_features))
    right = (rule_of_blobs(features, data.means) == labels).mean()
    assert right == pytest.approx(data.bayes_accuracy, abs=spread_of(right, len(labels)) + 1e-3)


@pytest.mark.parametrize(("num_features", "num_classes"), [(9, 3), (2, 5)])
def test_bayes_accuracy_of_blobs_at_the_ends(num_features, num_classes):
    blobs = partial(GaussianBlobsDataModule, num_features=num_features, num_classes=num_classes, seed=0)
    assert blobs(separation=0).bayes_accuracy == pytest.approx(1 / num_classes, abs=1e-9)
    assert blobs(separation=1e6).bayes_accuracy == pytest.approx(1, abs=1e-9)
    assert blobs(separation=1e30).bayes_accuracy == pytest.approx(1, abs=1e-9)


def test_separation_is_the_root_mean_square_distance():
    means = GaussianBlobsDataModule(num_features=5000, num_classes=10, separation=7.0, seed=0).means
    distances = [np.linalg.norm(means[a] - means[b]) for a in range(10) for b in range(a)]
    assert np.sqrt(np.mean(np.square(distances))) == pytest.approx(7, rel=0.02)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (XORDataModule(100_000, noise=0.4, test_size=0.8, seed=1), lambda data, x: rule_of_xor(x, data.noise)),
        (MoonsDataModule(30_000, noise=0.3, test_size=0.8, seed=1), lambda data, x: rule_of_moons(x, data.noise)),
        (GaussianBlobsDataModule(100_000, test_size=0.8, seed=1), lambda data, x: rule_of_blobs(x, data.means)),
        (GaussianBlobsDataModule(100_000, 2, test_size=0.8, seed=1), lambda data, x: rule_of_blobs(x, data.means)),
    ],
)
def test_true_rule_reaches_the_bayes_accuracy_on_the_test_split(data, rule):
    test = ready(data).splits.test
    right = (rule(data, test.features.double().numpy()) == test.targets.numpy()).mean()
    margin = 1e-3 if isinstance(data, GaussianBlobsDataModule) else 0
    assert right == pytest.approx(data.bayes_accuracy, abs=spread_of(right, len(test)) + margin)


@pytest.mark.parametrize(
    ("module", "classes"),
    [(XORDataModule, 2), (MoonsDataModule, 2), (partial(GaussianBlobsDataModule, num_classes=7), 7)],
)
def test_classes_are_as_frequent_as_each_other(module, classes):
    data = ready(module(1000, seed=0))
    assert data.num_classes == classes
    for name in ("train", "val", "test"):
        counts = getattr(data.splits, name).targets.bincount()
        assert len(counts) == classes
        assert counts.max() - counts.min() <= 1


def test_corners_of_xor_are_as_they_should_be():
    features, labels = samples(XORDataModule(400, noise=0, seed=0))
    corners, counts = np.unique(np.column_stack([features, labels]), axis=0, return_counts=True)
    assert corners.tolist() == [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert counts.tolist() == [100] * 4


def test_moons_without_noise_are_half_circles():
    features, labels = samples(MoonsDataModule(20_000, noise=0, seed=0))
    upper, lower = features[labels == 0], features[labels == 1] - [1.0, 0.5]
    for moon, side in ((upper, 1), (lower, -1)):
        assert np.linalg.norm(moon, axis=1) == pytest.approx(1, abs=1e-6)
        assert (side * moon[:, 1]).min() > -1e-6
        angles = np.arccos(np.clip(moon[:, 0], -1, 1)) / np.pi
        assert np.histogram(angles, bins=5, range=(0, 1))[0] / len(moon) == pytest.approx(
            0.2, abs=4 * np.sqrt(0.16 / 1e4)
        )


# In a Trainer.


def perceptron(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


FITTING = [
    (LinearDataModule, {"num_features": 3, "noise": np.float64(0.5)}, lambda: nn.Linear(3, 1), Regression),
    (PolynomialDataModule, {"degree": 1, "seed": 2**70}, lambda: nn.Linear(1, 1), Regression),
    (XORDataModule, {"noise": 0.2}, lambda: perceptron(2, 1), BinaryClassification),
    (MoonsDataModule, {"noise": 0.3}, lambda: perceptron(2, 1), BinaryClassification),
    (GaussianBlobsDataModule, {}, lambda: nn.Linear(20, 5), partial(MulticlassClassification, num_classes=5)),
]


@pytest.mark.parametrize(("module", "arguments", "network", "task"), FITTING)
def test_trained_model_comes_close_to_the_limit_and_does_not_beat_it(tmp_path, module, arguments, network, task):
    torch.manual_seed(0)
    data = module(**{"num_samples": 4000, "batch_size": 100, "standardize": True, "seed": 0, **arguments})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=12,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=12,
    )
    model = task(network=network(), optimizer=partial(torch.optim.Adam, lr=0.03))
    trainer.fit(model, data)
    [metrics] = trainer.test(model, data, verbose=False)
    if task is Regression:
        assert metrics["test/mse"] == pytest.approx(data.noise_variance, rel=4 * np.sqrt(2 / 800) + 0.02)
    else:
        assert metrics["test/accuracy"] == pytest.approx(
            data.bayes_accuracy, abs=spread_of(data.bayes_accuracy, 800) + 0.02
        )
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert saved["datamodule_hyper_parameters"] == dict(data.hparams)
    assert digest(module(**saved["datamodule_hyper_parameters"])) == digest(data)
    again = module.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert dict(again.hparams) == dict(data.hparams)
