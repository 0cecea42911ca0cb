import hashlib

import numpy as np
import pytest
from scipy.special import ndtri

from datamodules.portable_random import Stream, half_circle, log, normal_quantile

NEAREST_TO_ONE = 1.0 - 2.0**-53


def spread(count=200_000):
    """Probabilities all over (0, 1), and as many in its far ends."""
    middle = np.linspace(0.0, 1.0, count + 2)[1:-1]
    ends = 10.0 ** np.linspace(-300.0, -1.0, count)
    return np.concatenate([middle, ends, 1.0 - 10.0 ** np.linspace(-15.9, -1.0, count)])


def test_normal_quantile_agrees_with_scipy():
    probabilities = spread()
    np.testing.assert_allclose(normal_quantile(probabilities), ndtri(probabilities), rtol=2e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (0.5, 0.0),
        (0.975, 1.959963984540054),
        (0.075, -1.4395314709384563),  # where the formula changes
        (2.0**-54, -8.2923611),
        (NEAREST_TO_ONE, 8.2095362),
        (1e-300, -37.0471),
    ],
)
def test_normal_quantile_of_known_and_extreme_probabilities(probability, expected):
    values = normal_quantile(np.array([[probability]]))
    assert values.shape == (1, 1)
    assert values[0, 0] == pytest.approx(expected, rel=2e-6 if abs(expected) > 2 else 1e-15, abs=0)


def test_normal_quantile_is_symmetric_and_ascends():
    halves = np.arange(1, 2**16) / 2.0**17  # so that 1 - p is exact
    assert np.array_equal(normal_quantile(halves), -normal_quantile(1.0 - halves))
    assert np.diff(normal_quantile(np.linspace(0.001, 0.999, 100_000))).min() > 0


def test_normal_quantile_leaves_its_argument_alone():
    probabilities = np.array([0.01, 0.5, 0.99])
    normal_quantile(probabilities)
    assert probabilities.tolist() == [0.01, 0.5, 0.99]


@pytest.mark.parametrize(
    "values",
    [
        10.0 ** np.linspace(-307, 308, 100_000),
        np.linspace(0.5, 2.0, 100_001),
        1.0 + np.linspace(-1e-6, 1e-6, 10_001),
        np.array([5e-324, 1.0, 1.7976931348623157e308]),
    ],
    ids=["all magnitudes", "about the middle", "close to one", "ends"],
)
def test_log_agrees_with_numpy(values):
    np.testing.assert_allclose(log(values), np.log(values), rtol=6e-16, atol=0)


def test_half_circle_agrees_with_numpy():
    shares = np.linspace(0.0, 1.0, 100_001)
    cosine, sine = half_circle(shares)
    np.testing.assert_allclose(cosine, np.cos(np.pi * shares), atol=5e-16, rtol=0)
    np.testing.assert_allclose(sine, np.sin(np.pi * shares), atol=5e-16, rtol=0)
    np.testing.assert_allclose(cosine**2 + sine**2, 1.0, rtol=1e-15)


# Numbers that must never change.


@pytest.mark.parametrize(
    ("seed", "name", "uniform", "normal"),
    [
        (
            0,
            "features",
            [0.018723173199034993, 0.1066124902448487, 0.34261156641681373],
            [-2.080864106034512, -1.2447464101273753, -0.405346088922583],
        ),
        (
            1,
            "features",
            [0.1423753208389283, 0.11531070969712304, 0.32872986761787176],
            [-1.0697082722186166, -1.1987596421555786, -0.4434230934036729],
        ),
        (
            0,
            "noise",
            [0.17435764911462365, 0.6269031035260129, 0.11031233019467185],
            [-0.9370841025174421, 0.32366219826656745, -1.224868792380618],
        ),
        (
            2**70,
            "weight",
            [0.2504856137746077, 0.2820239950149482, 0.9578126893983452],
            [-0.6729623755915727, -0.5768393420334912, 1.7258487813314618],
        ),
    ],
)
def test_streams_give_these_very_numbers(seed, name, uniform, normal):
    assert Stream(seed, name).uniform(3).tolist() == uniform
    assert Stream(seed, name).normal(3).tolist() == normal


def test_a_million_numbers_are_these_very_ones():
    stream = Stream(0, "test")
    numbers = np.concatenate([stream.normal(500_000), *half_circle(stream.uniform(250_000))]).astype("<f8")
    assert (
        hashlib.sha256(numbers.tobytes()).hexdigest()
        == "c83384a43b223ca3920f8c022696bc77508afd98d3bba80c9b0c0132f03a4188"
    )


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("pieces", [[(5,), (7,), (0,), (8,)], [(4, 5)], [(2, 5), (1, 10)], [(1,)] * 20])
def test_sequence_is_its_pieces(kind, pieces):
    whole = getattr(Stream(3, "pieces"), kind)(20)
    stream = Stream(3, "pieces")
    parts = [getattr(stream, kind)(*shape) for shape in pieces]
    assert [part.shape for part in parts] == pieces
    assert np.concatenate([part.ravel() for part in parts]).tolist() == whole.tolist()


def test_other_seeds_and_names_have_nothing_in_common():
    count = 100_000
    streams = [(0, "a"), (1, "a"), (2, "a"), (2**32, "a"), (2**70, "a"), (0, "b"), (1, "b"), (0, "ab"), (0, "features")]
    numbers = np.stack([Stream(seed, name).normal(count) for seed, name in streams])
    correlations = np.corrcoef(numbers) - np.eye(len(streams))
    assert np.abs(correlations).max() < 4.5 / np.sqrt(count)
    assert len(np.unique(numbers)) == numbers.size


def test_same_seed_and_name_have_everything_in_common():
    assert Stream(2**70, "a").uniform(100).tolist() == Stream(2**70, "a").uniform(100).tolist()


def test_uniform_numbers_are_even():
    count = 1_000_000
    numbers = Stream(5, "test").uniform(count)
    shares = np.histogram(numbers, bins=100, range=(0.0, 1.0))[0] / count
    assert numbers.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / count))
    assert np.abs(shares - 0.01).max() < 4.5 * np.sqrt(0.01 / count)


def test_normal_numbers_have_their_moments():
    count = 1_000_000
    numbers = Stream(6, "test").normal(count)
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (numbers**power).mean() == pytest.approx(expected, abs=4 * np.sqrt(variance / count))
    assert (np.abs(numbers) > 1.959963984540054).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.0475 / count))
    assert np.corrcoef(numbers[:-1], numbers[1:])[0, 1] == pytest.approx(0, abs=4 / np.sqrt(count))


class Bits:
    """A generator of the same 64 bits for ever."""

    def __init__(self, bits):
        self.bits = bits

    def random_raw(self, count):
        return np.full(count, self.bits, dtype=np.uint64)


@pytest.mark.parametrize(
    ("bits", "uniform", "normal"),
    [(0, 2.0**-54, -8.2923611), (2**64 - 1, NEAREST_TO_ONE, 8.2095362), (2**63, 0.5, 0.0)],
    ids=["lowest", "highest", "middle"],
)
def test_neither_zero_nor_one_comes_up(bits, uniform, normal):
    stream = Stream(0, "test")
    stream._bits = Bits(bits)
    assert stream.uniform(2).tolist() == [uniform] * 2
    assert stream.normal(1)[0] == pytest.approx(normal, rel=1e-7, abs=1e-15)
