"""Figures of gradients and dead units: what is drawn is read back from the artists."""

import math

import numpy as np
import pytest

from zoo.figures.style import style
from zoo.figures.training import dead_units, gradient_norms


def drawn(figure, tmp_path):
    """The figure, when it has been drawn, so that labels are where they belong."""
    with style():
        figure.savefig(tmp_path / "figure.png")
    return figure


def lines(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_few_layers_are_lines_that_differ_not_only_in_colour(tmp_path):
    layers = {"first": [3.0, 0.3], "second": [4.0, None]}
    figure = drawn(gradient_norms([0, 10], [5.0, 0.5], layers, "xor: gradient norms", 1.0), tmp_path)
    [axes] = figure.axes
    shown = lines(axes)
    assert shown.pop("second")[0] == 4.0
    assert shown == {"all layers, before clipping": [5.0, 0.5], "clipped at 1": [1.0, 1.0], "first": [3.0, 0.3]}
    assert legend(figure) == ["all layers, before clipping", "clipped at 1", "first", "second"]
    assert len({(line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in axes.lines}) == 4
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("optimizer step", "gradient norm", "log")
    assert figure.get_suptitle() == "xor: gradient norms"


def test_the_only_layer_is_not_drawn_twice():
    figure = gradient_norms([0, 10], [5.0, 0.5], {"only": [5.0, 0.5]}, "title")
    assert lines(figure.axes[0]) == {"all layers": [5.0, 0.5]}


def test_many_layers_are_a_map_in_the_order_of_the_network(tmp_path):
    layers = {f"layer{index}": [10.0**-index, 0.0, math.inf] for index in range(8)}
    figure = drawn(gradient_norms([0, 10, 20], [5.0, 0.5, 1.0], layers, "title"), tmp_path)
    whole, below, bar = figure.axes
    assert lines(whole) == {"all layers": [5.0, 0.5, 1.0]}
    values = below.collections[0].get_array()
    np.testing.assert_allclose(values[:, 0], 10.0 ** -np.arange(8.0))
    assert values[:, 1:].mask.all()
    assert [label.get_text() for label in below.get_yticklabels()] == list(layers)
    assert below.yaxis_inverted()
    assert bar.get_ylabel() == "gradient norm; grey: none"
    assert below.get_xlim() == (0, 30)


def test_dead_units_are_shares_in_percent(tmp_path):
    figure = drawn(dead_units([0, 10], {"first": [0.0, 0.5], "second": [0.25, None]}, "title"), tmp_path)
    [axes] = figure.axes
    assert lines(axes)["first"] == [0.0, 50.0]
    assert lines(axes)["second"][0] == 25.0
    assert axes.get_ylabel() == "units zero for all samples of 5 looks [%]"
    assert axes.get_ylim()[1] == pytest.approx(52.5)
    figure = dead_units([0, 10], {f"layer{index}": [0.0, index / 20] for index in range(9)}, "title", looks=3)
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(mesh.get_array()[:, 1], np.arange(9) * 5.0)
    assert mesh.get_clim() == (0.0, 40.0)
    assert figure.axes[1].get_ylabel() == "units zero for all samples of 3 looks [%]"


def test_names_of_any_kind_are_drawn_as_they_are(tmp_path):
    long = "encoder.layers.11.self_attention.output_projection.dense"
    layers = {"_hidden": [0.1], "$x$": [0.2], "$unfinished": [0.3], long: [0.4]}
    figure = drawn(dead_units([7], layers, "a $ title"), tmp_path)
    assert legend(figure) == [" _hidden", r"\$x\$", r"\$unfinished", "encoder.layers.11.…_projection.dense"]
    assert figure.axes[0].get_xlim() == (6, 8)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("value", [None, 0.0, math.nan, math.inf])
def test_values_that_cannot_be_drawn_leave_gaps(count, value, tmp_path):
    layers = {f"layer{index}": [value, None] for index in range(count)}
    drawn(gradient_norms([0, 1], [value, None], layers, "title"), tmp_path)
    drawn(dead_units([0, 1], layers, "title"), tmp_path)


def test_of_very_many_layers_every_few_are_named(tmp_path):
    layers = {f"layer{index:03}": [1.0 + index, 2.0] for index in range(100)}
    figure = drawn(gradient_norms([0, 1], [5.0, 0.5], layers, "title"), tmp_path)
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert names == [f"layer{index:03}" for index in range(0, 100, 4)]
    assert figure.axes[1].collections[0].get_array().shape == (100, 2)


def test_nothing_is_not_drawn():
    with pytest.raises(ValueError, match="no look to draw"):
        gradient_norms([], [], {}, "title")
    with pytest.raises(ValueError, match="no look to draw"):
        dead_units([], {}, "title")
