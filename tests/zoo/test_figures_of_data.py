import io
import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from zoo.decoding import greedy_decode
from zoo.figures.boundary import _free_place, decision_boundary
from zoo.figures.images import sample_grid, weight_images
from zoo.figures.regression import predicted_against_true, regression_fit
from zoo.figures.sequences import ReadLine, ctc_alignment, forecasts
from zoo.figures.style import style
from zoo.figures.text import printable


def picture(figure):
    """What would be written; any warning of matplotlib's is an error here."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png")
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10  # not blank
    return pixels


def line(axes, label):
    [found] = [each for each in axes.lines if each.get_label() == label]
    return found


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


# ---------------------------------------------------------------------- regression


def test_residuals_are_targets_minus_fitted():
    x, y, fitted = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 4.0]), np.array([1.5, 2.5, 3.0])
    figure = regression_fit("t", x, y, fitted, (x, fitted), x + 1.0, noise_variance=0.25)
    above, below = figure.axes
    np.testing.assert_array_equal(above.collections[0].get_offsets(), np.stack([x, y], axis=1))
    np.testing.assert_array_equal(below.collections[0].get_offsets(), [[0.0, -0.5], [1.0, 0.5], [2.0, 1.0]])
    np.testing.assert_array_equal(line(above, "fitted").get_ydata(), fitted)
    np.testing.assert_array_equal(line(above, "true function").get_ydata(), [1.0, 2.0, 3.0])
    assert line(below, "± RMSE").get_ydata()[0] == pytest.approx(math.sqrt(0.5))
    assert above.get_title() == "mean squared error 0.5 of 3 test samples\n(variance of the noise: 0.25)"


def test_predicted_stand_against_true_and_residuals_against_predicted():
    figure = predicted_against_true("t", np.array([1.0, 2.0]), np.array([3.0, 1.0]))
    left, right = figure.axes
    np.testing.assert_array_equal(left.collections[0].get_offsets(), [[1.0, 3.0], [2.0, 1.0]])
    np.testing.assert_array_equal(right.collections[0].get_offsets(), [[3.0, -2.0], [1.0, 1.0]])
    assert left.get_xlim() == left.get_ylim()


@pytest.mark.parametrize(("count", "error"), [(1, 1.0), (5, 0.0)])
def test_constant_targets_can_be_drawn(count, error):
    values = np.full(count, 1e6)
    picture(regression_fit("t", values, values, values + error, (np.array([0.0, 2e6]), np.full(2, 1e6))))
    picture(predicted_against_true("t", values, values + error))


# ---------------------------------------------------------------------- boundaries


def grid(classes=0):
    x, y = np.linspace(0.0, 4.0, 41), np.linspace(-1.0, 1.0, 21)
    if not classes:
        return x, y, 1.0 / (1.0 + np.exp(-(x[None] - 2.0 + y[:, None])))
    centres = np.linspace(0.0, 4.0, classes)
    logits = -np.square(x[None, :, None] - centres) + 0.0 * y[:, None, None]
    return x, y, np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)


def contours(axes):
    sets = [part for part in axes.collections if type(part).__name__ == "QuadContourSet"]
    return [np.concatenate([path.vertices for path in part.get_paths()]) for part in sets]


def test_the_line_is_where_the_probability_is_the_threshold():
    x, y, probabilities = grid()
    samples = np.array([[0.5, 0.0], [3.5, 0.5], [3.0, 0.0]])
    figure = decision_boundary("t", x, y, probabilities, samples, np.array([0, 1, 0]), np.array([0, 1, 1]), 0.8)
    [vertices] = contours(figure.axes[0])
    np.testing.assert_allclose(vertices.sum(axis=1), 2.0 + math.log(4.0), atol=2e-3)  # logit 0.8 = log 4
    assert "p = 0.8" in texts(figure)
    assert figure.axes[0].get_title() == "accuracy 66.67 % of 3 test samples"
    assert {"class 0", "class 1", "misclassified"} <= set(figure.axes[0].get_legend_handles_labels()[1])
    picture(figure)


def test_the_label_of_a_boundary_is_away_from_the_border_even_where_samples_are():
    line = np.linspace([0.0, 0.0], [4.0, 2.0], 101)  # to the corners of the plane
    crowd = np.array([[2.0, 1.0], [3.0, 1.5]])
    assert _free_place(line, crowd, (0.0, 0.0), (4.0, 2.0)) == pytest.approx((0.4, 0.2))
    low = line * [1.0, 0.05]  # along the border, all of it
    assert _free_place(low, crowd, (0.0, 0.0), (4.0, 2.0)) == pytest.approx((4.0 * 0.95, 0.095), abs=0.05)


def test_no_line_where_the_prediction_is_the_same_everywhere():
    x, y, probabilities = grid()
    labels = np.zeros(2, dtype=int)
    figure = decision_boundary("t", x, y, np.full_like(probabilities, 0.25), np.zeros((2, 2)), labels, labels)
    assert contours(figure.axes[0]) == []
    picture(figure)


def test_the_lines_of_several_classes_are_where_two_are_as_probable():
    x, y, probabilities = grid(classes=3)
    labels = np.array([0, 2, 1, 1])
    samples = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 0.1], [2.1, 0.0]])
    figure = decision_boundary("t", x, y, probabilities, samples, labels, labels)
    found = np.concatenate(contours(figure.axes[0]))[:, 0]
    np.testing.assert_allclose(np.minimum(abs(found - 1.0), abs(found - 3.0)), 0.0, atol=0.02)
    assert {"0", "1", "2"} <= set(texts(figure))  # where colours and shades do not tell
    picture(figure)


def test_each_of_many_classes_has_a_marker_of_its_own():
    x, y, probabilities = grid(classes=10)
    labels = np.arange(10)
    figure = decision_boundary("t", x, y, probabilities, np.zeros((10, 2)), labels, labels)
    handles = figure.axes[0].get_legend_handles_labels()[0]
    looks = {(tuple(map(tuple, each.get_paths()[0].vertices)), tuple(each.get_facecolor()[0])) for each in handles}
    assert len(looks) == 10


def test_accuracy_is_that_of_all_samples_and_100_percent_only_if_all_are_right():
    x, y, probabilities = grid()
    labels = np.zeros(20_001, dtype=int)
    predicted = labels.copy()
    predicted[-1] = 1
    figure = decision_boundary("t", x, y, probabilities, np.zeros((20_001, 2)), labels, predicted)
    assert figure.axes[0].get_title() == "accuracy 99.99 % of 20,001 test samples, 1,000 of them shown"


# ---------------------------------------------------------------------- images


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def test_weights_are_shown_as_they_are_on_a_scale_with_zero_in_its_middle():
    weights = np.arange(12.0).reshape(3, 2, 2) - 2.0
    figure = weight_images("t", weights, ["a", "b", "c"])
    for index, axes in enumerate(figure.axes[:3]):
        np.testing.assert_array_equal(shown(axes), weights[index])
        assert axes.images[0].get_clim() == (-9.0, 9.0)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    picture(figure)


def test_the_sign_of_a_weight_is_seen_without_colours():
    figure = weight_images("t", np.linspace(-1.0, 1.0, 9).reshape(1, 3, 3))
    rgb = figure.axes[0].images[0].to_rgba(np.linspace(-1.0, 1.0, 9))[:, :3]
    luma = rgb @ [0.299, 0.587, 0.114]
    assert np.diff(luma).min() > 0.05


def test_weights_of_three_colours_are_shown_in_these():
    weights = np.zeros((1, 3, 2, 2))
    weights[0, 0, 1, 0] = -0.25
    figure = weight_images("t", weights)
    expected = np.full((2, 2, 3), 0.5)
    expected[1, 0, 0] = 0.0
    np.testing.assert_array_equal(shown(figure.axes[0]), expected)
    assert "grey: 0, full colour: ± 0.25" in texts(figure)
    picture(figure)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_images_and_weights_can_be_drawn(value):
    weight_images("t", np.full((1, 3, 3), value))
    picture(sample_grid("t", [np.full((1, 4, 9), value)], ["$x"]))
    sample_grid("t", [np.full((3, 9, 4), value)], ["_"])


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 5, 4), 7), ((2, 4, 5), 31), ((3, 4, 60), 2), ((5, 60, 2), 7), ((1, 1, 1), 1)]
)
def test_images_of_any_shape_and_number_have_a_place_each(shape, count):
    images = list(np.random.default_rng(0).normal(size=(count, *shape)))
    figure = sample_grid("t", images, list(map(str, range(count))))
    assert [axes.get_title() for axes in figure.axes if axes.images][:count] == list(map(str, range(count)))
    width, height = figure.get_size_inches()
    assert 1.0 < width <= 10.0
    assert 1.0 < height < 100.0
    if shape[0] != 3:
        np.testing.assert_allclose(shown(figure.axes[count - 1]), images[-1].mean(axis=0))


# ---------------------------------------------------------------------- sequences


def test_forecasts_continue_the_windows():
    windows, targets = np.arange(8.0).reshape(2, 4), np.array([[4.0, 5.0], [8.0, 9.0]])
    series = np.concatenate([windows, targets], axis=1)
    figure = forecasts("t", windows, targets, targets + 0.5, series, longest=3)
    second = figure.axes[1]
    np.testing.assert_array_equal(line(second, "seen").get_xydata(), [[1, 5], [2, 6], [3, 7]])
    np.testing.assert_array_equal(line(second, "truth").get_xydata(), [[4, 8], [5, 9]])
    np.testing.assert_array_equal(line(second, "forecast").get_ydata(), [8.5, 9.5])
    np.testing.assert_array_equal(line(second, "without noise").get_xydata()[:, 1], [5, 6, 7, 8, 9])
    assert second.get_title() == "test series 1: root mean squared error 0.5"


@pytest.mark.parametrize("count", [1, 3])
def test_constant_series_can_be_drawn(count):
    picture(forecasts("t", np.zeros((count, 2)), np.zeros((count, 1)), np.zeros((count, 1))))


def read_line(path, labels, truth=""):
    probabilities = np.full((len(path), labels), 0.1 / labels)
    probabilities[np.arange(len(path)), path] += 0.9
    return ReadLine(np.zeros((6, 4 * len(path) + 3)), probabilities, 4.0, truth)


@pytest.mark.parametrize("path", [[0], [1], [0, 1, 1, 0, 1, 2, 2, 0], [2, 2, 2], [1, 2, 1, 0, 0]])
def test_characters_begin_where_the_greedy_decoder_finds_them(path):
    read = read_line(path, 3)
    [decoding] = greedy_decode(torch.from_numpy(read.probabilities).log()[None])
    assert tuple(read.path[read.spelt].tolist()) == decoding.labels
    assert read.path.tolist() == path


def test_the_path_is_drawn_over_the_columns_of_its_steps():
    figure = ctc_alignment("t", [read_line([0, 2, 2, 0, 1], 3, truth="ab")], "ab")
    above, below = figure.axes[:2]
    assert above.get_title(loc="left") == "truth “ab”, read “ba”: wrong"
    np.testing.assert_array_equal(line(below, "greedy path").get_xydata(), [[2, 0], [6, 2], [10, 2], [14, 0], [18, 1]])
    np.testing.assert_array_equal(line(below, "a character begins").get_xydata(), [[6, 2], [18, 1]])
    assert [label.get_text() for label in below.get_yticklabels()] == ["blank", "a", "b"]
    assert below.images[0].get_extent() == [0.0, 20.0, 2.5, -0.5]
    assert above.get_xlim() == below.get_xlim() == (0.0, 23.0)


def test_of_a_large_alphabet_only_what_counts_has_a_row():
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 30)))
    uniform = ReadLine(np.zeros((6, 8)), np.full((2, 31), 1 / 31), 4.0, "")
    figure = ctc_alignment("t", [read_line([0, 3], 31, truth=alphabet[6]), uniform], alphabet)
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["blank", "U+4E02", "U+4E06"]
    assert [label.get_text() for label in figure.axes[3].get_yticklabels()] == ["blank"]
    picture(figure)


def test_an_odd_alphabet_can_be_drawn():
    alphabet = "$_ \n\N{GRINNING FACE}\N{COMBINING ACUTE ACCENT}\\^{}\0"
    path = [label for index in range(len(alphabet)) for label in (0, index + 1)]
    figure = ctc_alignment("t", [read_line(path, len(alphabet) + 1, truth=alphabet)], alphabet)
    assert figure.axes[0].get_title(loc="left").endswith(": right")
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()][3:6] == [
        "space",
        "U+000A",
        "\N{GRINNING FACE}",
    ]
    picture(figure)


def test_what_the_font_lacks_is_named():
    assert printable("a é\u200b\U0001fae8") == "a éU+200BU+1FAE8"
