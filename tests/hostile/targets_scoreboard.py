"""What a scoreboard reads: its own file, and what the runs left."""

import json

from fuzz import Target
from mutations import blind
from targets_files import in_json

from experiments.over_seeds import MeanClaim, RunsError, Spread, describe, read_summary
from experiments.scoreboard.about import About
from experiments.scoreboard.board import Board, BoardError, read_board
from experiments.scoreboard.page import page
from experiments.scoreboard.row import Finished, Row, row_as_json, row_of

CIRCUMSTANCES = {
    "machine": {"cpu": "CPU", "cores": 2, "memory_gib": 8.0, "gpu": None},
    "device": "CPU, 2 threads",
    "precision": "32-true",
    "versions": {"torch": "2.15.0"},
    "commit": "0123456789abcdef",
    "clean": True,
    "code": "c0de",
    "date": "2026-01-31T12:00:00+00:00",
}
XOR = About("xor", "Exclusive or", "MLP", "test/accuracy", datasets=frozenset({"xor"}))


def boards(directory):
    figures = {"test/accuracy": Spread((0.9, 0.92, 0.91)), "seconds": Spread((5.0, 5.1, 5.2))}
    value = figures["test/accuracy"]
    claims = [
        MeanClaim("test/accuracy", "max", value, 0.9, Spread((0.95, 0.96, 0.97)), "the best possible", 3),
        MeanClaim("test/accuracy", "max", value, 0.9, Spread((0.9,) * 3), "published for nets, A et al. 2000", 3),
        MeanClaim("test/accuracy", "max", value, 0.9, None, "", 3),
    ]
    rows = {
        name: Row(
            name, "MLP", "test/accuracy", 4, (0, 1, 2), {3: "no"}, figures, [claim], "xor", False, 7, CIRCUMSTANCES
        )
        for name, claim in zip("abc", claims, strict=True)
    }
    return [
        Board(rows).as_text().encode(),
        Board({"a": Row("a", "MLP", "test/mse", 1, failed={0: "no"})}).as_text().encode(),
    ]


def open_board(path):
    board = read_board(path)
    text = page(board)
    assert "<script" not in text
    assert len(text) < 2**25
    json.loads(board.as_text().encode())


def summaries(directory):
    claim = {"metric": "test/accuracy", "value": 0.9, "bar": 0.8, "mode": "max", "reached": True, "limit": 1.0}
    claims = [{**claim, "source": "the best possible"}, {**claim, "limit": None, "value": None, "source": ""}]
    summary = {
        "experiment": "xor",
        "dataset": "xor",
        "seed": 0,
        "test/accuracy": 0.9,
        "test/loss": None,
        "examined": {"perceptron/accuracy": 0.75},
        "claims": claims,
        "parameters": 65,
        "seconds": {"total": 9.2},
        "device": "CPU",
        "precision": "32-true",
    }
    return [json.dumps(summary).encode(), json.dumps({**summary, "claims": claims[:1]}).encode()]


def open_summary(path):
    summary = read_summary(path)
    describe([summary, summary])
    run = Finished(summary, CIRCUMSTANCES)
    row = row_of(XOR, 2, {0: run, 1: run}, {})
    json.dumps(row_as_json(row), allow_nan=False)
    page(Board({"xor": row}))


TARGETS = [
    Target("scoreboard", boards, open_board, (BoardError,), [blind, blind, in_json], ".json"),
    Target("seed-summary", summaries, open_summary, (RunsError,), [blind, blind, in_json], ".json"),
]
