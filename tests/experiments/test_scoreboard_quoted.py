"""The board's figures in docstrings and in the README: on copies."""

import ast
import dataclasses
import re

import pytest

from experiments.over_seeds import MeanClaim, Spread
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.about import About
from experiments.scoreboard.board import Board
from experiments.scoreboard.page import page
from experiments.scoreboard.quoted import QuotationError, quotations, with_figures, write_quotations
from experiments.scoreboard.row import Row

PUBLISHED = "published for LeNet-5 without distortions, LeCun et al. 1998"
ACCURACIES = (0.9915, 0.9922, 0.9929)
LENET = About("mnist_lenet", "LeNet-5 reads MNIST", "LeNet-5", "test/accuracy", headline=("test/accuracy", "seconds"))
LINE = About(
    *("linear_regression", "A line", "linear", "test/mse", "min"),
    headline=("weight_error", "test/mse", "limit", "seconds"),
    reported={"naive/mse": "of the last value"},
)
CIRCUMSTANCES = {
    "machine": {},
    "device": "Intel(R) Xeon(R) Processor, 2 threads",
    "precision": "bf16-mixed",
    "versions": {"python": "3.11.7", "torch": "2.15.0+cpu", "lightning": "2.6.6"},
    "commit": None,
    "clean": True,
    "code": "",
    "date": "2026-01-31T12:00:00+00:00",
}
SOURCE = '''"""LeNet-5 reads MNIST: 98.00 % of the 10,000 test images, in 3 s.

61,706 parameters, 0.1 of them for nothing.

Measured with a sundial: 97.00 % in the shade.

Other measurements stay: 12.34 % in 5 s.
"""

import math

EXPERIMENT = math.pi
'''


def lenet(**changes):
    figures = {"test/accuracy": Spread(ACCURACIES), "seconds": Spread((66.0, 67.3, 68.9))}
    claim = MeanClaim("test/accuracy", "max", figures["test/accuracy"], 0.99, Spread((0.9905,) * 3), PUBLISHED, 3)
    row = Row("mnist_lenet", "LeNet-5", "test/accuracy", 3, (0, 1, 2), {}, figures, [claim], "MNIST", False, 61706)
    return dataclasses.replace(row, circumstances=CIRCUMSTANCES, **changes)


def line():
    figures = {
        "test/mse": Spread((0.2532, 0.2468)),
        "weight_error": Spread((1.1e-4, 3e-5)),
        "naive/mse": Spread((1.5, 1.7)),
        "seconds": Spread((5.35, 5.45)),
    }
    claims = [
        MeanClaim("test/mse", "min", figures["test/mse"], 0.26, Spread((0.25, 0.25)), "the variance of the noise", 2),
        MeanClaim("weight_error", "min", figures["weight_error"], 1e-3, None, "", 2),
    ]
    row = Row("linear_regression", "linear", "test/mse", 2, (0, 1), {}, figures, claims, "linear", False, 2)
    return dataclasses.replace(row, circumstances={**CIRCUMSTANCES, "precision": "32-true"})


def docstring(source):
    return ast.get_docstring(ast.parse(source), clean=False)


WRITTEN = """\
LeNet-5 reads MNIST: 99.22 % of the 10,000 test images, in 67 s.

61,706 parameters, 0.1 of them for nothing.

Measured with ``python -m experiments.scoreboard --only mnist_lenet``, seeds 0 to 2, real MNIST: test accuracy
99.22 % +- 0.07 (lowest 99.15); 67.4 s +- 1.5 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6,
Python 3.11.7, bfloat16. Published for LeNet-5 without distortions: 99.05 % (LeCun et al. 1998).

Other measurements stay: 12.34 % in 5 s.
"""


def test_the_figures_of_a_docstring_become_those_of_the_board_and_nothing_else_changes():
    source = with_figures(SOURCE, LENET, lenet())
    assert docstring(source) == WRITTEN
    assert source.endswith('"""\n\nimport math\n\nEXPERIMENT = math.pi\n')


def test_figures_of_every_kind_are_written_as_they_stand_there():
    source = '"""A line: to within 9e-9, MSE 0.1 of at best 0.3, in 1 s."""\n'
    text = docstring(with_figures(source, LINE, line()))
    assert text.startswith("A line: to within 2e-4, MSE 0.2500 of at best 0.25, in 5.4 s.\n\nMeasured with ")
    told = " ".join(text.split())
    assert "test MSE 0.2500 +- 0.0045 (highest 0.2532), 1.000 times the variance of the noise, weight error" in told
    assert "weight error 7.0e-5 +- 5.7e-5 (highest 1.1e-4), of the last value 1.60 +- 0.14; 5.4 s +- 0.1 in all" in told
    assert told.endswith("Python 3.11.7.")


def test_a_figure_held_against_two_published_ones_is_told_once():
    row = lenet()
    other = dataclasses.replace(row.board_claims[0], source="published for LeNet-5 with distortions, LeCun et al. 1998")
    text = docstring(with_figures(SOURCE, LENET, dataclasses.replace(row, claims=[*row.claims, other])))
    assert text.count("99.22 % +- 0.07") == 1
    assert text.count("Published for") == 2


def test_minutes_stay_minutes():
    figures = {**lenet().figures, "seconds": Spread((590.0, 610.0, 600.0))}
    source = SOURCE.replace("in 3 s.", "in 2 minutes.")
    assert with_figures(source, LENET, lenet(figures=figures)).startswith(
        '"""LeNet-5 reads MNIST: 99.22 % of the 10,000 test images, in 10 minutes.'
    )


def test_writing_twice_is_writing_once():
    once = with_figures(SOURCE, LENET, lenet())
    assert with_figures(once, LENET, lenet()) == once
    once = with_figures('"""A line: to within 9e-9, MSE 0.1 of 0.3, in 1 s."""\n', LINE, line())
    assert with_figures(once, LINE, line()) == once


def test_a_limit_of_each_seeds_own_data_is_told_in_points():
    values, limits = Spread((0.87, 0.91)), Spread((0.88, 0.915))
    claim = MeanClaim("test/accuracy", "max", values, 0.8, limits, "the best possible", 2)
    row = lenet(claims=[claim], figures={"test/accuracy": values, "seconds": Spread((5.0, 5.0))}, seeds=(0, 1))
    text = " ".join(docstring(with_figures(SOURCE, LENET, row)).split())
    assert "89.00 % +- 2.83 (lowest 87.00), 0.75 +- 0.35 percentage points below the best possible; 5.0 s" in text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            SOURCE.replace("98.00 %", "many"),
            "the first line of mnist_lenet has the figures 3 s; its headline are test/acc",
        ),
        (SOURCE.replace("in 3 s", "in 3 s of 4 s"), "has the figures 98.00 %, 3 s, 4 s; its headline are"),
        (SOURCE.replace("98.00 %", "0.98"), "has 0.98 in the place of test/accuracy"),
        (SOURCE.replace("98.00 %", "3 s").replace("in 3 s", "98 %"), "has 3 s in the place of test/accuracy"),
        (SOURCE.replace("of the", "of the" + 70 * "x"), "is longer than 120 characters"),
        (SOURCE.replace("61,706", r"61\t706"), "does not begin with a docstring"),
        ("import math\n", "does not begin with a docstring"),
    ],
)
def test_a_sentence_without_a_place_for_the_figures_is_named(source, message):
    with pytest.raises(QuotationError, match=re.escape(message)):
        with_figures(source, LENET, lenet())


@pytest.mark.parametrize("name", ["limit", "test/unknown"])
def test_a_headline_that_the_board_does_not_have_is_named(name):
    row = lenet(claims=[])
    with pytest.raises(
        QuotationError, match=r"has no limit to tell|the board has no test/unknown of mnist_lenet; it has"
    ):
        with_figures(SOURCE, dataclasses.replace(LENET, headline=(name, "seconds")), row)


# ---------------------------------------------------------------------- a checkout


BEGIN = "<!-- scoreboard: written by python -m experiments.scoreboard --write-figures -->\n"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "README.md").write_text(
        f"# Title\n\n{BEGIN}| `mnist_mlp` | by hand | 98 % | | |\n<!-- end of the scoreboard -->\n\nMore.\n"
    )
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mnist_lenet.py").write_text(SOURCE)
    return tmp_path


def test_the_readme_gets_a_row_of_every_experiment(checkout):
    board = Board({"mnist_lenet": lenet()})
    files = ["README.md", "SCOREBOARD.md", "experiments/mnist_lenet.py"]
    assert write_quotations(board, checkout) == [checkout / name for name in files]
    assert (checkout / "SCOREBOARD.md").read_text() == page(board)
    text = (checkout / "README.md").read_text()
    assert text.startswith("# Title\n\n<!-- scoreboard")
    assert text.endswith("<!-- end of the scoreboard -->\n\nMore.\n")
    assert (
        "| `mnist_lenet` | LeNet-5 reads MNIST without distortions | test accuracy 99.22 % ± 0.07 (3 seeds) "
        "| 99.05 % for LeNet-5 without distortions (LeCun et al. 1998) | 67.4 s ± 1.5 |\n"
    ) in text
    assert "| `mnist_mlp` | by hand | 98 % | | |\n" in text  # what is not measured stays as it is
    assert "not measured yet: 0 seeds" in text
    assert "on Intel Xeon Processor, 2 threads; torch 2.15.0" in " ".join(text.split())
    assert write_quotations(board, checkout) == []


def test_a_figure_that_was_typed_over_is_found(checkout):
    board = Board({"mnist_lenet": lenet()})
    write_quotations(board, checkout)
    for path in (checkout / "README.md", checkout / "experiments" / "mnist_lenet.py"):
        right = path.read_text()
        path.write_text(right.replace("99.22", "99.23", 1))
        assert [quotation.path for quotation in quotations(board, checkout) if quotation.before != quotation.after] == [
            path
        ]
        write_quotations(board, checkout)
        assert path.read_text() == right


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            lenet(stand_in=True, dataset="digits"),
            "the figures of mnist_lenet are not to be told: on digits, a stand-in",
        ),
        (lenet(wanted=5), "the figures of mnist_lenet are not to be told: incomplete: 3 of 5 seeds"),
    ],
)
def test_what_is_incomplete_or_on_other_data_is_not_told(row, message, checkout):
    before = (checkout / "README.md").read_text()
    with pytest.raises(QuotationError, match=message):
        write_quotations(Board({"mnist_lenet": row}), checkout)
    assert (checkout / "README.md").read_text() == before


def test_without_a_place_nothing_is_written(checkout):
    (checkout / "README.md").write_text("# Title\n")
    with pytest.raises(QuotationError, match=r"README\.md has no place for the table"):
        write_quotations(Board({"mnist_lenet": lenet()}), checkout)
    (checkout / "README.md").unlink()
    with pytest.raises(QuotationError, match="into a checkout alone"):
        write_quotations(Board({"mnist_lenet": lenet()}), checkout)
    assert (checkout / "experiments" / "mnist_lenet.py").read_text() == SOURCE


def test_the_command_without_a_board_says_so(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--write-figures"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: there is no scoreboard.json with figures to write: give --output\n"
