"""What a report reads of a run, to be fuzzed."""

import json
from pathlib import Path

from fuzz import Target
from mutations import blind
from targets_files import PICTURE_MUTATORS, in_json, pictures

from datamodules import DataError
from experiments.report.figures import FigureFile, read_figures
from experiments.report.history import HistoryError, read_history
from experiments.report.page import render
from experiments.report.parts import RunName
from experiments.report.result import ResultError, read_result
from experiments.report.runs import Run
from experiments.report.sections import history

RUN = Path("run")


def summaries(directory):
    claim = {"metric": "test/accuracy", "value": 0.9, "bar": 0.8, "mode": "max", "reached": True, "limit": 1.0}
    summary = {
        "experiment": "xor",
        "dataset": "xor",
        "samples": {"train": 2800, "val": 400, "test": 800},
        "seed": 0,
        "test/accuracy": 0.9,
        "test/loss": None,
        "examined": {"perceptron/accuracy": 0.75},
        "limit": 1.0,
        "claims": [{**claim, "source": "the best possible"}, claim],
        "steps": 560,
        "parameters": 65,
        "seconds": {"total": 9.2, "fit": 1.0},
        "device": "CPU",
        "versions": {"torch": "2.15.0"},
    }
    return [json.dumps(summary, indent=2).encode(), json.dumps({"test/mse": 1e-9}).encode()]


def open_summary(path):
    run = Run(RUN, result=read_result(path))
    assert len(render([run])) < 2**25
    render([run, run])


def histories(directory):
    rows = [f"{step},{step // 4},{1 / (step + 1)},,{step % 2}" for step in range(40)]
    table = "\n".join(["step,epoch,train/loss,val/loss,val/accuracy", *rows, "39,9,,0.5,", ""]).encode()
    return [table, table.replace(b"\n", b"\r\n"), b"step,epoch\n", b"step,a\n1,nan\n2,-inf\n3,1e308\n"]


def open_history(path):
    run = Run(RUN, history=read_history(path))
    for curve in run.history.series.values():
        assert curve.steps == sorted(curve.steps)
        assert len(curve.steps) == len(curve.values) > 0
    drawn = FigureFile("learning_curves", b"", (1, 1))  # in the place of curves that take a while to be drawn
    history([Run(RUN, history=run.history, figures=[drawn])], [RunName(1, "run", alone=True)])
    if run.history.unreadable:
        raise HistoryError(f"{run.history.unreadable} values are no numbers")


def open_figure(path):
    folder = path.parent / "run" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(path.read_bytes())
    figures, problems = read_figures(folder.parent)
    if problems:
        [problem] = problems
        raise DataError(problem)
    [figure] = figures
    assert min(figure.size) > 0


TARGETS = [
    Target("run-summary", summaries, open_summary, (ResultError,), [blind, blind, in_json], ".json"),
    Target("run-metrics", histories, open_history, (HistoryError,), [blind], ".csv"),
    Target("run-figure", pictures("PNG"), open_figure, (DataError,), PICTURE_MUTATORS["PNG"], ".png"),
]
