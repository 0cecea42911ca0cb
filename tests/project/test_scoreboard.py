"""The committed board, and everything that quotes it, are the same to the digit."""

from pathlib import Path

import pytest

from experiments.__main__ import list_experiments
from experiments.over_seeds import SECONDS, MeanClaim, Spread
from experiments.scoreboard.about import about
from experiments.scoreboard.board import DATA, read_board
from experiments.scoreboard.quoted import quotations, with_figures
from experiments.scoreboard.row import UNKNOWN, Row

REPOSITORY = Path(__file__).parents[2]
MENDING = "python -m experiments.scoreboard --write-figures"

# Of the table on the MNIST database's page and the papers, in percent; beside an experiment, as far as there is one.
PUBLISHED_ERRORS = {
    "mnist_softmax": [12.0],
    "mnist_mlp_mse": [4.7],
    "mnist_mlp": [1.6],
    "mnist_dropout_mlp": [1.25, 1.06],
    "mnist_lenet": [0.95],
    "mnist_lenet_distorted": [0.8],
    "mnist_convnet_elastic": [0.4],
    "mnist_best": [0.35],
    "mnist_ensemble": [0.13],
}

# What ours must be, in percent; of the ensemble what is asked of a single network.
LARGEST_ERRORS = {
    "mnist_softmax": 7.6,
    "mnist_mlp_mse": 2.0,
    "mnist_mlp": 1.6,
    "mnist_dropout_mlp": 1.2,
    "mnist_lenet": 0.95,
    "mnist_lenet_distorted": 0.7,
    "mnist_convnet_elastic": 0.4,
    "mnist_best": 0.3,
    "mnist_ensemble": 0.3,
}

KNOWN = {**UNKNOWN, "device": "Machine, 1 thread", "versions": {"torch": "2", "lightning": "2", "python": "3"}}

pytestmark = pytest.mark.skipif(not (REPOSITORY / DATA).is_file(), reason=f"there is no {DATA}")


@pytest.fixture(scope="module")
def board():
    return read_board(REPOSITORY / DATA)


@pytest.fixture(scope="module")
def experiments():
    return {name: about(name, line) for name, line in list_experiments().items()}


def test_the_board_is_as_the_command_writes_it(board):
    assert (REPOSITORY / DATA).read_text(encoding="utf-8") == board.as_text()


def test_page_readme_and_docstrings_quote_the_board(board):
    wrong = [one.path.name for one in quotations(board) if one.before != one.after]
    assert wrong == [], f"figures of another board: {MENDING}"


def test_every_experiment_has_a_complete_row(board):
    assert set(list_experiments()) - set(board.rows) == set()
    assert [name for name, row in board.rows.items() if not row.is_quotable] == []


def test_every_row_is_of_an_experiment_as_it_is_now(board, experiments):
    for name, row in board.rows.items():
        assert (row.architecture, row.metric) == (experiments[name].architecture, experiments[name].metric)
        assert len(row.seeds) >= 3  # fewer give no interval


def test_every_first_line_has_a_place_for_its_figures(experiments):
    for name, line in list_experiments().items():
        one = experiments[name]
        figures = dict.fromkeys((*one.headline, *one.reported, one.metric, SECONDS), Spread((0.5,)))
        claim = MeanClaim(one.metric, one.mode, Spread((0.5,)), 0.5, Spread((0.25,)), "the best possible", 1)
        row = Row(name, one.architecture, one.metric, 1, (0,), {}, figures, [claim], "MNIST", circumstances=KNOWN)
        source = (REPOSITORY / "experiments" / f"{name}.py").read_text(encoding="utf-8")
        assert with_figures(source, one, row).count("0.5 s") >= 1, line
        assert one.architecture != one.what, f"{name} does not name its architecture"


def test_published_errors_are_those_of_the_papers(experiments):
    import importlib

    from experiments.scoreboard import words

    found = {}
    for name in PUBLISHED_ERRORS:
        claims = importlib.import_module(f"experiments.{name}").EXPERIMENT.claims
        limits = [claim.limit for claim in claims if claim.limit is not None and words.published(claim.source)]
        found[name] = [round(100 * (1 - limit), 2) for limit in limits]
    assert found == PUBLISHED_ERRORS


def test_bars_are_no_lower_than_what_was_asked_for(experiments):
    import importlib

    bars = {
        name: round(100 * (1 - importlib.import_module(f"experiments.{name}").EXPERIMENT.claims[0].bar), 2)
        for name in LARGEST_ERRORS
    }
    assert {name: bar for name, bar in bars.items() if bar > LARGEST_ERRORS[name]} == {}
