"""What is drawn, read back from the artists of a figure and from its PNG."""

import math
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torchmetrics.functional.classification import multiclass_calibration_error

from zoo.figures.calibration import reliability_diagram
from zoo.figures.confusion import confusion_matrix, most_confused
from zoo.figures.learning_curves import Curve, learning_curves
from zoo.figures.misclassified import as_pictures, worst_images
from zoo.figures.publish import publish
from zoo.figures.ranking import roc_and_precision_recall

COUNTS = np.array([[8, 2, 0], [0, 5, 5], [1, 0, 9]])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_confusion_matrix_has_the_counts_and_the_colours_of_their_shares():
    figure = confusion_matrix(COUNTS, "mine: confusion matrix", ["cat", "dog", "cow"])
    ax, bar = figure.axes
    at = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in ax.texts}
    assert at == {(0, 0): "8", (0, 1): "2", (1, 1): "5", (1, 2): "5", (2, 0): "1", (2, 2): "9"}
    [image] = ax.images
    assert np.allclose(image.get_array(), [[0.8, 0.2, 0.0], [0.0, 0.5, 0.5], [0.1, 0.0, 0.9]])
    assert image.norm(0.01) > 0.15  # an error in a hundred is seen
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "cow"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert ax.get_title() == "8 of 30 samples misclassified (26.67 %)"
    assert figure.get_suptitle() == "mine: confusion matrix"
    assert bar.get_ylabel() == "share of the true class"


@pytest.mark.parametrize(("classes", "written"), [(2, 2), (30, 30), (31, 0)])
def test_counts_are_written_for_as_many_classes_as_can_be_read(classes, written):
    ax = confusion_matrix(np.diag(range(classes)), "t").axes[0]
    assert len(ax.texts) == written
    assert len(ax.get_xticks()) == classes


def test_the_most_frequent_confusions_come_first():
    [ax] = most_confused(COUNTS, "t").axes
    assert [bar.get_width() for bar in ax.patches] == [5, 2, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1 read as 2", "0 read as 1", "2 read as 0"]
    assert texts(ax) == ["5 (50.0 %)", "2 (20.0 %)", "1 (10.0 %)"]
    assert len(most_confused(COUNTS, "t", limit=2).axes[0].patches) == 2


@pytest.mark.parametrize("counts", [np.diag([3, 4]), np.array([[7]])])
def test_where_nothing_is_confused_the_figure_says_so(counts):
    [ax] = most_confused(counts, "t").axes
    assert texts(ax) == ["none of 7 samples is misclassified"]


@pytest.mark.parametrize("draw", [confusion_matrix, most_confused])
@pytest.mark.parametrize(
    ("counts", "names", "said"),
    [
        (np.zeros((2, 3), int), None, "(classes, classes), got (2, 3)"),
        (np.zeros((0, 0), int), None, "got (0, 0)"),
        (COUNTS, ["a", "b"], "3 classes, but 2 class_names"),
    ],
)
def test_counts_that_are_none_are_refused(draw, counts, names, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        draw(counts, "t", names)


def test_a_reliability_diagram_has_the_bins_and_the_error_by_hand():
    # Four bins; two samples in the second, three in the last, whose share is wrong by 0.15 and 0.25.
    probabilities, hits = np.array([0.3, 0.4, 0.8, 0.9, 1.0]), np.array([1, 0, 1, 0, 1])
    figure = reliability_diagram(probabilities, hits, "t", num_bins=4)
    top, bottom = figure.axes
    shares, gaps = top.containers
    assert [bar.get_height() for bar in shares] == pytest.approx([1 / 2, 2 / 3])
    assert [bar.get_y() + bar.get_height() for bar in gaps] == pytest.approx([0.35, 0.9])
    assert [bar.get_x() for bar in shares] == pytest.approx([0.25, 0.75])
    assert all(bar.get_hatch() for bar in gaps)
    assert [bar.get_height() for bar in bottom.containers[0]] == [0, 2, 0, 3]
    by_hand = 2 / 5 * 0.15 + 3 / 5 * (0.9 - 2 / 3)
    assert top.get_title() == f"expected calibration error {by_hand:.4f} (4 bins)"


def test_the_error_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(500, 4, generator=generator)).softmax(1).clamp(max=1 - 1e-6)
    targets = torch.randint(4, (500,), generator=generator)
    expected = multiclass_calibration_error(probabilities, targets, 4, n_bins=15)
    confidence, classes = probabilities.max(1)
    title = reliability_diagram(confidence.numpy(), (classes == targets).numpy(), "t").axes[0].get_title()
    assert title == f"expected calibration error {expected:.4f} (15 bins)"


@pytest.mark.parametrize("hits", [[], [1, 0]])
def test_hits_that_do_not_fit_are_refused(hits):
    with pytest.raises(ValueError, match="a hit or miss for each"):
        reliability_diagram(np.array([0.5][: len(hits)]), np.array(hits), "t")


def test_roc_and_precision_recall_are_those_by_hand():
    # Ranked: 1, 0, 1, 0. Of the four pairs three are in order; precision is 1 at recall 0.5 and 2/3 at recall 1.
    scores, targets = np.array([0.1, 0.4, 0.35, 0.8], np.float32), np.array([0, 0, 1, 1])
    figure = roc_and_precision_recall(np.stack([1 - scores, scores], 1), targets, "t", ["no", "yes"])
    roc, recall = figure.axes
    assert np.allclose(roc.lines[0].get_xydata(), [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]])
    assert legend(roc) == ["class yes: 0.75000"]
    assert legend(recall) == [f"class yes: {0.5 * 1 + 0.5 * 2 / 3:.5f}"]
    assert np.allclose(recall.lines[0].get_xydata(), [[1, 0.5], [1, 2 / 3], [0.5, 0.5], [0.5, 1], [0, 1]])
    assert (roc.get_xlabel(), roc.get_ylabel()) == ("false positive rate", "true positive rate")
    assert (recall.get_xlabel(), recall.get_ylabel()) == ("recall", "precision")


def test_curves_of_many_classes_are_told_apart_and_those_without_samples_left_out():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(14), 300).astype(np.float32)
    targets = generator.integers(0, 12, 300)  # the last two have none
    roc, _ = roc_and_precision_recall(probabilities, targets, "t").axes
    curves = roc.lines[:-1]  # and the diagonal
    assert len(curves) == 10
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 10
    assert roc.get_legend().get_title().get_text() == "area under the curve (10 lowest of 12)"


def test_classes_of_one_name_are_classes_of_their_own():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(12), 300).astype(np.float32)
    targets = np.arange(300) % 12
    roc, _ = roc_and_precision_recall(probabilities, targets, "t", ["same"] * 12).axes
    assert len(roc.lines) == 10 + 1


def test_what_is_nearly_perfect_is_enlarged_and_not_rounded_to_perfect():
    scores = np.linspace(0, 1, 2_000, dtype=np.float32)
    targets = (scores > 0.5).astype(int)
    targets[[999, 1_000]] = [1, 0]  # one pair of a million is out of order
    roc, recall = roc_and_precision_recall(np.stack([1 - scores, scores], 1), targets, "t").axes
    assert legend(roc) == ["class 1: 0.99999"]
    assert roc.get_xlim()[1] < 0.02
    assert recall.get_xlim()[0] > 0.98
    assert roc.get_title().startswith("enlarged")


def test_one_class_alone_has_no_curve():
    with pytest.raises(ValueError, match="nothing to tell apart"):
        roc_and_precision_recall(np.ones((3, 2), np.float32) / 2, np.zeros(3, int), "t")


def test_worst_images_stand_in_order_over_truth_prediction_and_confidence():
    images = np.zeros((9, 1, 30, 28), np.float32)
    images[0, 0, 3, 4] = 7.0
    names = [str(number) for number in range(9)]
    figure = worst_images(images, names, names[::-1], [0.99] * 9, "t", "the 9 surest of 12")
    [ax] = figure.axes
    assert texts(ax)[0] == "true 0\nread 8\n99.0 % sure"
    assert len(ax.texts) == 9
    sheet = ax.images[0].get_array()
    assert sheet[3, 4] == 1.0
    assert sheet[0, 0] == 0.0
    xs, ys = zip(*(text.get_position() for text in ax.texts), strict=True)
    assert xs[8] == xs[0]  # the ninth begins a second row
    assert ys[8] > ys[0] > 29
    assert ax.get_title() == "the 9 surest of 12"


def test_where_no_image_is_misclassified_the_figure_says_so():
    figure = worst_images(np.zeros((0, 1, 8, 8)), [], [], [], "t")
    assert [text.get_text() for text in figure.texts if text.get_text() != "t"] == ["no sample is misclassified"]


def test_images_are_shown_between_black_and_white_and_in_their_colours():
    grey = as_pictures(np.array([[[-3.0, 1.0]], [[2.0, 2.0]]]))
    assert grey.tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]
    colours = as_pictures(np.arange(12.0).reshape(1, 3, 2, 2))
    assert colours.shape == (1, 2, 2, 3)
    assert colours[0, 0, 1].tolist() == pytest.approx([1 / 11, 5 / 11, 9 / 11])
    assert as_pictures(np.ones((1, 5, 2, 2))).shape == (1, 2, 2)
    with pytest.raises(ValueError, match="height, width"):
        as_pictures(np.ones((4, 10)))


def test_learning_curves_have_a_panel_a_metric_with_all_its_values():
    curves = {
        "val/accuracy": Curve([9], [0.5]),
        "train/loss": Curve([4, 9], [100.0, 0.5]),
        "train/loss_epoch": Curve([9], [50.0]),
        "val_loss": Curve([9], [0.7]),
        "lr-SGD": Curve([4, 9], [0.1, 0.01]),
    }
    figure = learning_curves(curves, "mine: learning curves")
    loss, accuracy, rate = figure.axes
    lines = {line.get_label(): line for line in loss.lines}
    assert lines["training"].get_xydata().tolist() == [[4, 100.0], [9, 0.5]]
    assert lines["training, mean of the epoch"].get_xydata().tolist() == [[9, 50.0]]
    assert lines["validation"].get_xydata().tolist() == [[9, 0.7]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines.values()}) == 3
    assert loss.get_yscale() == "log"
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "accuracy", "lr-SGD"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"optimizer step"}
    assert accuracy.lines[0].get_marker() != ""  # a single value can be seen
    assert texts(accuracy) == ["0.5"]
    assert accuracy.get_ylim()[1] <= 1.02
    assert rate.get_yscale() == "linear"


def test_one_legend_below_the_panels_names_every_kind_of_curve_once():
    names = ("val/loss", "train/loss", "val/loss_epoch", "train/loss_epoch", "val/accuracy", "lr-SGD")
    curves = {name: Curve([1, 2], [float(number), 1.0]) for number, name in enumerate(names)}
    figure = learning_curves(curves, "t")
    figure.draw_without_rendering()
    [names_of_curves] = figure.legends
    expected = ["training", "validation", "training, mean of the epoch", "validation, mean of the epoch"]
    assert [text.get_text() for text in names_of_curves.get_texts()] == expected
    assert all(ax.get_legend() is None for ax in figure.axes)
    assert names_of_curves.get_window_extent().y1 < min(ax.get_window_extent().y0 for ax in figure.axes)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == 4
    assert learning_curves({"lr": Curve([1, 2], [1.0, 2.0])}, "t").legends == []


def test_means_that_are_the_values_themselves_do_not_hide_them():
    curves = {"train/loss": Curve([5, 9], [2.0, 1.0]), "train/loss_epoch": Curve([5, 9], [2.0, 1.0])}
    [ax] = learning_curves(curves, "t").axes
    assert [line.get_label() for line in ax.lines] == ["training"]


def test_learning_curves_leave_gaps_and_are_refused_where_there_is_nothing():
    [ax] = learning_curves({"train/loss": Curve([1, 2, 3], [2.0, math.nan, 1.0])}, "t").axes
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] < 1.0
    assert ax.get_ylim()[1] > 2.0
    for nothing in ({}, {"train/loss": Curve([1], [math.inf])}):
        with pytest.raises(ValueError, match="nothing was logged"):
            learning_curves(nothing, "t")


def test_dollars_in_names_are_no_mathematics_and_unknown_scripts_no_warning(tmp_path):
    figure = most_confused(np.array([[1, 2], [0, 3]]), "$5 or $6: \\frac", ["日本", "$x$"])
    publish(figure, "odd", tmp_path, [], 0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [r"日本 read as \$x\$"]
    assert (tmp_path / "odd.png").is_file()


def test_a_figure_becomes_a_png_and_an_image_of_loggers_that_take_any(tmp_path):
    board = TensorBoardLogger(tmp_path, name="board", version="")
    figure = confusion_matrix(COUNTS, "t")
    mpl.rcParams["font.size"] = 7  # a user's own setting
    try:
        publish(figure, "confusion", tmp_path / "new" / "figures", [CSVLogger(tmp_path), board], step=12)
        assert mpl.rcParams["font.size"] == 7
    finally:
        mpl.rcdefaults()
    with Image.open(tmp_path / "new" / "figures" / "confusion.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # not blank
    board.finalize("success")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0}).Reload()
    [image] = events.Images("figures/confusion")
    assert (image.step, image.height, image.width) == (12, *pixels.shape[:2])
