import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from datamodules import DataError
from datamodules.digit_images import as_mnist
from datamodules.image_files import read_image


def drawn(digit, size=100, ink=0, paper=255, at=None, stroke=2, mode="L"):
    """A picture of a digit in Pillow's own font."""
    picture = Image.new(mode, (size, size), paper)
    at = (size / 2, size / 2) if at is None else at
    font = ImageFont.load_default(size * 0.6)
    ImageDraw.Draw(picture).text(at, digit, fill=ink, font=font, anchor="mm", stroke_width=stroke)
    return picture


def tensor(picture):
    return torch.from_numpy(np.array(picture))


def centre_of_mass(pixels):
    weights = pixels.double()
    index = torch.arange(28.0, dtype=torch.float64)
    return float((weights.sum(1) * index).sum() / weights.sum()), float((weights.sum(0) * index).sum() / weights.sum())


def box(pixels):
    rows, columns = pixels.any(1).nonzero()[:, 0], pixels.any(0).nonzero()[:, 0]
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


@pytest.mark.parametrize("digit", "0123456789")
@pytest.mark.parametrize(("ink", "paper", "polarity"), [(0, 255, "dark on light"), (230, 40, "light on dark")])
def test_a_digit_fills_the_box_and_has_its_mass_at_the_centre(digit, ink, paper, polarity):
    found = as_mnist(tensor(drawn(digit, ink=ink, paper=paper)))
    assert (found.polarity, found.glyphs) == (polarity, 1)
    assert found.pixels.shape == (28, 28)
    assert found.pixels.dtype == torch.uint8
    assert max(box(found.pixels)) == 20
    assert int(found.pixels.max()) == 255
    assert int(found.pixels[0].max()) == int(found.pixels[:, 0].max()) == 0
    assert all(abs(centre - 14.0) <= 0.51 for centre in centre_of_mass(found.pixels))


@pytest.mark.parametrize("picture", [(40, 10), (10, 40), (40, 40), (4, 4), (300, 100)])
def test_the_aspect_ratio_is_kept(picture):
    height, width = picture
    paper = torch.full((height + 60, width + 50), 200, dtype=torch.uint8)
    paper[30 : 30 + height, 20 : 20 + width] = 10
    expected = [max(1, round(20 * side / max(picture))) for side in picture]
    assert list(box(as_mnist(paper).pixels)) == expected


def test_where_the_digit_is_and_how_large_the_page_makes_no_difference():
    font = ImageFont.load_default(60)
    made = []
    for size, at in ((100, (50, 50)), (100, (30, 65)), (700, (90, 600))):
        picture = Image.new("L", (size, size), 255)
        ImageDraw.Draw(picture).text(at, "4", fill=0, font=font, anchor="mm", stroke_width=2)
        made.append(as_mnist(tensor(picture)).pixels)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_a_huge_page_is_averaged_first_and_looks_the_same():
    small, huge = (as_mnist(tensor(drawn("5", size, stroke=size // 50))).pixels.float() for size in (400, 6000))
    assert (small - huge).abs().mean() < 6.0  # grey levels


@pytest.mark.parametrize(
    ("file", "picture"),
    [
        ("colour.png", drawn("7", 90, (20, 40, 160), (250, 230, 120), mode="RGB")),
        ("colour.jpg", drawn("7", 90, (20, 40, 160), (250, 230, 120), mode="RGB")),
        ("transparent.png", drawn("7", 90, (0, 0, 0, 255), (0, 0, 0, 0), mode="RGBA")),
        ("palette.gif", drawn("7", 90).convert("P")),
        ("sixteen.png", Image.fromarray(np.array(drawn("7", 90)).astype(np.uint16) * 257)),
        ("one_bit.bmp", drawn("7", 90).convert("1")),
    ],
)
def test_of_every_kind_of_file_the_same_digit_comes_out(file, picture, tmp_path):
    picture.save(tmp_path / file)
    found, plain = as_mnist(read_image(tmp_path / file)), as_mnist(tensor(drawn("7", 90)))
    assert found.polarity == "dark on light"
    assert (found.pixels.float() - plain.pixels.float()).abs().mean() < 5.0


def test_white_strokes_on_nothing_are_light_on_dark(tmp_path):
    drawn("7", 90, (255, 255, 255, 255), (255, 255, 255, 0), mode="RGBA").save(tmp_path / "white.png")
    found, plain = as_mnist(read_image(tmp_path / "white.png")), as_mnist(tensor(drawn("7", 90)))
    assert found.polarity == "light on dark"
    assert (found.pixels.float() - plain.pixels.float()).abs().mean() < 5.0


def test_noise_and_specks_are_left_out():
    clean = tensor(drawn("6", 200, ink=60, paper=180))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = (clean + 4.0 * noise).round().clamp(0, 255).to(torch.uint8)
    noisy[3:6, 190:193] = 0
    noisy[195, 10] = 255
    found = as_mnist(noisy)
    assert max(box(found.pixels)) == 20
    assert (found.pixels.float() - as_mnist(clean).pixels.float()).abs().mean() < 8.0


@pytest.mark.parametrize(
    "picture",
    [
        torch.zeros(28, 28, dtype=torch.uint8),
        torch.full((5, 9), 255, dtype=torch.uint8),
        torch.full((1, 1), 90, dtype=torch.uint8),
        torch.full((30, 30), 100, dtype=torch.uint8).index_fill_(0, torch.tensor([12]), 112),
        torch.randint(0, 256, (80, 80), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
    ],
    ids=["black", "white", "one pixel", "too faint", "noise"],
)
def test_a_blank_picture_is_refused(picture):
    with pytest.raises(DataError, match="nothing stands out"):
        as_mnist(picture)


@pytest.mark.parametrize(("text", "glyphs"), [("42", 2), ("307", 3), ("11", 2), ("8", 1)])
def test_several_glyphs_are_counted(text, glyphs):
    assert as_mnist(tensor(drawn(text, 300, stroke=1))).glyphs == glyphs


def test_pictures_of_any_shape_do_not_fail():
    generator = torch.Generator().manual_seed(1)
    for trial in range(300):
        height, width = (int(size) for size in torch.randint(1, 40, (2,), generator=generator))
        few = torch.rand(height, width, generator=generator) < 0.05 + 0.9 * (trial % 3) / 3
        picture = torch.where(few, trial % 256, 255 - trial % 256).to(torch.uint8)
        try:
            pixels = as_mnist(picture).pixels
        except DataError:
            continue
        assert int(pixels.max()) == 255
        assert max(box(pixels)) <= 20


def test_the_digits_of_mnist_stay_nearly_as_they_are(mnist):
    images = mnist.splits.test.features[:1000, 0]
    found = [as_mnist(image) for image in images]
    assert {each.polarity for each in found} == {"light on dark"}
    assert {each.glyphs for each in found} == {1}
    differences = torch.stack(
        [(each.pixels.float() - image).abs().mean() for each, image in zip(found, images, strict=True)]
    )
    assert float(differences.median()) < 1.0
    assert float((differences < 2.0).float().mean()) > 0.98
    inverted = [as_mnist(255 - image) for image in images]
    assert {each.polarity for each in inverted} == {"dark on light"}
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(found, inverted, strict=True))
    assert math.isclose(np.mean([centre_of_mass(each.pixels) for each in found]), 14.0, abs_tol=0.1)
