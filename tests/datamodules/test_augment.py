import math
import re

import pytest
import torch
from torch import Generator

from datamodules import DataError, RandomAffine, RandomElastic, RandomShift

ALL = pytest.mark.parametrize(
    "augment",
    [RandomShift(2), RandomAffine(), RandomElastic(), RandomElastic(affine=RandomAffine())],
    ids=["shift", "affine", "elastic", "elastic_affine"],
)


def seeded(seed):
    return Generator().manual_seed(seed)


def shifted(image, down, right, fill=0):
    """``image`` (channels, height, width) moved pixel by pixel."""
    moved = torch.full_like(image, fill)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


def all_shifts(image, pixels, fill=0):
    reach = range(-pixels, pixels + 1)
    return {(down, right): shifted(image, down, right, fill) for down in reach for right in reach}


def shift_of(image, result, pixels, fill=0):
    """The one shift that turns ``image`` into ``result``."""
    found = [shift for shift, moved in all_shifts(image, pixels, fill).items() if torch.equal(moved, result)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("draw", "expected"), [(0, (2, 2)), (1, (1, 1)), (2, (0, 0)), (3, (-1, -1)), (4, (-2, -2))])
def test_shift_moves_by_what_was_drawn(monkeypatch, draw, expected):
    images = torch.rand(3, 2, 6, 7)
    monkeypatch.setattr(torch, "randint", lambda _, size, **__: torch.full(size, draw))
    result = RandomShift(2)(images, seeded(0))
    for image, moved in zip(images, result, strict=True):
        assert torch.equal(moved, shifted(image, *expected))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", [0, 200])
def test_every_shift_within_reach_occurs_and_no_other(channels, fill):
    images = torch.randint(1, 200, (300, channels, 4, 5), dtype=torch.uint8, generator=seeded(1))
    result = RandomShift(1, fill=fill)(images, seeded(2))
    assert result.dtype == torch.uint8
    shifts = [shift_of(image, moved, 1, fill) for image, moved in zip(images, result, strict=True)]
    counts = {shift: shifts.count(shift) for shift in all_shifts(images[0], 1)}
    assert sum(counts.values()) == 300
    assert min(counts.values()) >= 15  # 33 expected of each of the nine


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_shift_keeps_type_and_what_it_was_given(dtype):
    images = torch.randint(256, (4, 1, 5, 5), generator=seeded(0)).to(dtype)
    before = images.clone()
    result = RandomShift(2)(images, seeded(1))
    assert (result.dtype, result.shape) == (dtype, images.shape)
    assert torch.equal(images, before)


@ALL
def test_draws_come_from_the_generator_alone(augment):
    images = torch.rand(16, 2, 9, 9)
    torch.manual_seed(1)
    first = augment(images, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(augment(images, seeded(5)), first)
    assert not torch.equal(augment(images, seeded(6)), first)


@ALL
def test_images_of_a_batch_are_drawn_for_one_by_one(augment):
    image = torch.rand(1, 1, 9, 9)
    result = augment(image.expand(32, -1, -1, -1), seeded(0))
    assert len({tuple(moved.flatten().tolist()) for moved in result}) > 10


@pytest.mark.parametrize("pixels", [0, -1])
def test_shift_of_nothing_is_refused(pixels):
    with pytest.raises(DataError, match=f"at least 1 pixel, got {pixels}"):
        RandomShift(pixels)


@pytest.mark.parametrize("size", [(28, 28), (7, 12)])
def test_affine_without_ranges_is_the_identity(size):
    images = torch.rand(5, 2, *size)
    result = RandomAffine(degrees=0, translate=0, scale=0, shear=0)(images, seeded(0))
    assert (result - images).abs().max() < 1e-5


def test_affine_stays_within_the_range_of_the_pixels():
    images = torch.randint(256, (64, 1, 28, 28), dtype=torch.uint8, generator=seeded(0))
    result = RandomAffine(degrees=45, translate=0.3, scale=0.5, shear=20)(images, seeded(1))
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert 200 < result.max() <= 255 + 1e-3


@pytest.fixture
def largest_draw(monkeypatch):
    """Every draw at the upper end of its range."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(size))


def blob(height, width, rows, columns):
    """A bright rectangle in the middle."""
    image = torch.zeros(1, 1, height, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    image[..., top : top + rows, left : left + columns] = 1
    return image


@pytest.mark.usefixtures("largest_draw")
def test_affine_moves_by_a_share_of_the_size():
    images = blob(28, 28, 6, 4)
    result = RandomAffine(degrees=0, translate=0.25, scale=0, shear=0)(images, seeded(0))
    shifts = [shift for shift in ((7, 7), (-7, -7)) if (shifted(images[0], *shift) - result[0]).abs().max() < 1e-4]
    assert len(shifts) == 1


@pytest.mark.usefixtures("largest_draw")
def test_affine_turns_by_its_degrees():
    image = torch.arange(100.0).reshape(1, 1, 10, 10)
    result = RandomAffine(degrees=90, translate=0, scale=0, shear=0)(image, seeded(0))
    turns = [turn for turn in range(4) if (image.rot90(turn, dims=(2, 3)) - result).abs().max() < 1e-3]
    assert turns in ([1], [3])


@pytest.mark.usefixtures("largest_draw")
def test_affine_turns_an_oblong_image_without_distorting_it():
    image = blob(20, 40, 10, 10)  # a square: a quarter turn changes nothing
    result = RandomAffine(degrees=90, translate=0, scale=0, shear=0)(image, seeded(0))
    assert (image - result).abs().max() < 1e-3


@pytest.mark.usefixtures("largest_draw")
def test_affine_scale_enlarges_by_its_share():
    area = RandomAffine(degrees=0, translate=0, scale=0.5, shear=0)(blob(28, 28, 8, 8), seeded(0)).sum()
    assert area.item() == pytest.approx(8 * 8 * 1.5**2, rel=0.02)


@pytest.mark.usefixtures("largest_draw")
def test_affine_shear_keeps_area_and_leans_by_its_degrees():
    image = blob(40, 40, 20, 4)
    result = RandomAffine(degrees=0, translate=0, scale=0, shear=45)(image, seeded(0))
    assert result.sum().item() == pytest.approx(80, rel=0.02)
    places = torch.arange(40.0)
    middles = (result[0, 0] * places).sum(dim=1)[11:29] / result[0, 0].sum(dim=1)[11:29]
    assert (middles.diff().abs() - 1).abs().max() < 0.05  # 45 degrees: a column further in every row


@pytest.mark.parametrize(("ranges", "bound"), [({"degrees": 30}, 0.02), ({"translate": 0.1}, 0.02)])
def test_affine_lets_no_light_in_or_out(ranges, bound):
    """What is moved or turned within the frame keeps its sum."""
    images = blob(28, 28, 10, 10).expand(100, -1, -1, -1)
    still = {"degrees": 0, "translate": 0, "scale": 0, "shear": 0}
    sums = RandomAffine(**{**still, **ranges})(images, seeded(0)).sum(dim=(1, 2, 3))
    assert ((sums - 100).abs() / 100).max() < bound


@ALL
@pytest.mark.parametrize("shape", [(6,), (4, 6), (4, 6, 6), (1, 2, 1, 6, 6)])
def test_what_is_no_batch_of_images_is_refused(augment, shape):
    with pytest.raises(DataError, match=r"shape \(batch, channels, height, width\) to be augmented, got \("):
        augment(torch.zeros(shape), seeded(0))


# Elastic distortions.


@ALL
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_one_and_any_channels_keep_their_shape_and_need_no_gradient(augment, channels):
    images = torch.randint(256, (1, channels, 6, 9), dtype=torch.uint8, generator=seeded(0))
    before = images.clone()
    result = augment(images, seeded(1))
    assert (result.shape, result.requires_grad) == (images.shape, False)
    assert torch.equal(images, before)
    assert not torch.equal(result, images.to(result.dtype))


@pytest.mark.parametrize("size", [(28, 28), (7, 12), (1, 1)])
@pytest.mark.parametrize("fill", [0.0, 90.0])
def test_elastic_without_alpha_is_the_identity(size, fill):
    images = torch.randint(256, (5, 2, *size), dtype=torch.uint8, generator=seeded(0))
    result = RandomElastic(alpha=0, fill=fill)(images, seeded(0))
    assert result.dtype == torch.float32
    assert (result - images).abs().max() < 2e-3  # of 255


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0, 9.5])
@pytest.mark.parametrize("size", [(28, 28), (9, 31)])
def test_elastic_displacements_have_the_variance_and_the_covariance_of_the_papers(sigma, size):
    """Uniform noise has a variance of 1/3; a Gaussian's squares sum to 1 / (4 pi sigma^2)."""
    images = torch.empty(3000, 1, *size)
    pixels = RandomElastic(alpha=30.0, sigma=sigma).displacements(images, seeded(0)).double()
    assert pixels.shape == (3000, *size, 2)
    expected = 30.0 / math.sqrt(3) / math.sqrt(4 * math.pi * sigma**2)
    deviation = pixels.square().mean(dim=0).sqrt()
    # The same at the border as in the middle, and along both axes.
    assert (deviation / expected - 1).abs().max() < 0.07
    assert deviation.mean().item() == pytest.approx(expected, rel=0.012)
    assert pixels.mean(dim=0).abs().max().item() < 5 * expected / math.sqrt(3000)
    # Pixels that are d apart go along with each other by exp(-d^2 / (4 sigma^2)), the axes by themselves.
    for apart in (1, 3, 6):
        together = (pixels[:, :, apart:] * pixels[:, :, :-apart]).mean() / expected**2
        assert together.item() == pytest.approx(math.exp(-(apart**2) / (4 * sigma**2)), abs=0.03)
    assert (pixels[..., 0] * pixels[..., 1]).mean().abs().item() < 0.03 * expected**2


def test_elastic_displacements_of_a_narrow_gaussian_are_the_noise_itself():
    pixels = RandomElastic(alpha=2.0, sigma=0.1).displacements(torch.empty(500, 1, 8, 8), seeded(0))
    assert 1.99 < pixels.abs().max() <= 2.0
    assert pixels.square().mean().sqrt().item() == pytest.approx(2.0 / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("sigma", [1e-300, 1.0, 1.001, 1e300])
def test_elastic_takes_any_sigma(sigma):
    pixels = RandomElastic(alpha=1.0, sigma=sigma).displacements(torch.empty(400, 1, 9, 9), seeded(0))
    expected = 1 / math.sqrt(3) / max(1.0, math.sqrt(4 * math.pi) * sigma)
    assert pixels.square().mean().sqrt().item() == pytest.approx(expected, rel=0.05, abs=1e-30)


@pytest.mark.parametrize(("sigma", "bound"), [(1.0, 10.0), (2.0, 10.0), (4.0, 5.0), (8.0, 2.5)])
def test_elastic_displacements_are_bounded(monkeypatch, sigma, bound):
    """All the noise at its end: ``alpha`` over the step at which it is drawn, a pixel or half of ``sigma``."""
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.ones(size))
    pixels = RandomElastic(alpha=10.0, sigma=sigma).displacements(torch.empty(1, 1, 20, 20), seeded(0))
    assert pixels.min().item() == pytest.approx(bound, rel=0.02)
    assert pixels.max().item() == pytest.approx(bound, rel=0.02)


def displaced_by(monkeypatch, right, down, **arguments):
    """An augmentation that takes every pixel from a place that lies so far beside its own."""

    def displacements(self, images, generator):
        return torch.tensor([right, down]).expand(len(images), *images.shape[2:], 2)

    monkeypatch.setattr(RandomElastic, "displacements", displacements)
    return RandomElastic(**arguments)


@pytest.mark.parametrize(("right", "down"), [(1.0, 0.0), (0.0, -1.0), (3.0, 2.0)])
@pytest.mark.parametrize("fill", [0.0, 50.0])
def test_elastic_displacements_are_in_pixels_and_fill_what_comes_from_beyond(monkeypatch, right, down, fill):
    images = torch.rand(2, 3, 7, 12)
    result = displaced_by(monkeypatch, right, down, fill=fill)(images, seeded(0))
    for image, moved in zip(images, result, strict=True):
        assert (moved - shifted(image, -int(down), -int(right), fill)).abs().max() < 1e-4


def test_elastic_reads_between_pixels_bilinearly(monkeypatch):
    images = torch.tensor([[[[0.0, 8.0, 2.0]]]])
    result = displaced_by(monkeypatch, 0.25, 0.0, fill=100.0)(images, seeded(0))
    assert result.flatten().tolist() == pytest.approx([2.0, 6.5, 2.0 + 0.25 * 98.0], abs=1e-4)


def test_elastic_goes_with_an_affine_distortion_in_one_resampling(monkeypatch):
    images = torch.rand(4, 1, 20, 20)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(*size))
    affine = RandomAffine(degrees=90, translate=0, scale=0, shear=0)
    turned = affine(images, seeded(0))
    # The displacement comes behind the turn: in the coordinates of the images that are read.
    both = displaced_by(monkeypatch, 3.0, 0.0, affine=affine)(images, seeded(0))
    moved = torch.stack([shifted(image, 0, -3) for image in images])
    assert (both - affine(moved, seeded(0))).abs().max() < 1e-4
    assert (both - turned).abs().max() > 0.5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        *(
            ({"alpha": value}, "alpha must be at least 0 and less than 1e+38")
            for value in (-1.0, math.inf, math.nan, 1e38)
        ),
        *(
            ({"sigma": value}, "sigma must be greater than 0 and less than 5e+307")
            for value in (0, -2.0, math.nan, 1e308)
        ),
        *(({"fill": value}, "fill must be between -1e+38 and 1e+38") for value in (math.nan, -math.inf, 1e300)),
    ],
)
def test_elastic_refuses_numbers_out_of_range(arguments, told):
    (value,) = arguments.values()
    with pytest.raises(DataError, match=re.escape(f"{told}, got {value!r}")):
        RandomElastic(**arguments)


def test_elastic_gives_numbers_for_whatever_it_takes():
    for arguments in ({"alpha": 9.9e37, "sigma": 4.9e307}, {"alpha": 9.9e37, "sigma": 1e-300}, {"fill": -9.9e37}):
        assert RandomElastic(**arguments)(torch.ones(3, 1, 1, 9), seeded(0)).isfinite().all()
