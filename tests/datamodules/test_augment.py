import pytest
import torch
from torch import Generator

from datamodules import DataError, RandomAffine, RandomShift


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


@pytest.mark.parametrize("augment", [RandomShift(2), RandomAffine()], ids=["shift", "affine"])
def test_draws_come_from_the_generator_alone(augment):
    images = torch.rand(16, 2, 9, 9)
    torch.manual_seed(1)
    first = augment(images, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(augment(images, seeded(5)), first)
    assert not torch.equal(augment(images, seeded(6)), first)


@pytest.mark.parametrize("augment", [RandomShift(2), RandomAffine()], ids=["shift", "affine"])
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
