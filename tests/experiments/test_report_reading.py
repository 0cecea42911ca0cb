"""What a report makes of runs that are damaged, hostile or very large."""

import json
import math
import os
import random
from pathlib import Path

import pytest
from page_reader import read_page, read_table
from PIL import Image

from experiments.__main__ import list_experiments
from experiments.report import charts
from experiments.report.__main__ import main
from experiments.report.charts import thinned
from experiments.report.comparison import best, deviating, labels, mode_of
from experiments.report.figures import order, read_figures
from experiments.report.history import History, Series, read_history
from experiments.report.page import render
from experiments.report.runs import Run, read_run
from zoo.figures.style import new_figure

SUMMARY = {
    "experiment": "xor",
    "dataset": "xor",
    "test/accuracy": 0.75,
    "claims": [],
    "seconds": {"total": 7384.2, "fit": 700.0},
    "steps": 100,
}


@pytest.fixture
def run(tmp_path):
    """A small run, made by hand."""
    directory = tmp_path / "run"
    (directory / "figures").mkdir(parents=True)
    (directory / "config.yaml").write_text("seed_everything: 0\nmodel:\n  hidden: 16\n")
    (directory / "summary.json").write_text(json.dumps(SUMMARY))
    (directory / "metrics.csv").write_text("step,epoch,train/loss,test/accuracy\n10,0,0.5,\n20,1,0.25,\n100,2,,0.75\n")
    Image.new("RGB", (40, 20), "red").save(directory / "figures" / "red.png")
    return directory


def report(run):
    return read_page(render([read_run(run)]))


# ------------------------------------------------------------------ what is missing


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], []),
        (
            [{"name": "dead_units", "evidence": "7 of 9 units are zero", "remedy": "lower <lr>"}],
            ["7 of 9 units are zero: lower <lr>"],
        ),
        ([{"evidence": "7"}, "x", None, {"evidence": 7, "remedy": "x"}], []),
        ("nothing", []),
    ],
)
def test_what_looked_wrong_in_the_training_stands_above_all_else(run, found, told):
    (run / "summary.json").write_text(json.dumps({**SUMMARY, "doctor": found}))
    read = read_run(run)
    assert read.notes == [f"What looks wrong in the training: {line}" for line in told]
    page = report(run)
    assert all(line in page.text for line in told)
    assert "evidence" not in page.text
    assert "doctor" not in page.text


@pytest.mark.parametrize("kept", ["config.yaml", "summary.json", "metrics.csv"])
def test_one_file_is_enough_of_a_run(run, kept, capsys):
    for path in [*run.glob("figures/*"), run / "figures", *run.glob("*.*")]:
        if path.name != kept:
            path.rmdir() if path.is_dir() else path.unlink()
    page = read_page(main([str(run)]).read_text())
    section = {"config.yaml": "configuration", "summary.json": "result", "metrics.csv": "history"}[kept]
    assert section in [part.attributes["id"] for part in page.all("section")]
    assert ("There is no summary.json" in page.text) == (kept != "summary.json")
    assert capsys.readouterr().err == ""


def test_a_resumed_run_that_has_not_ended_again_is_no_finished_one(run):
    assert read_run(run).notes == []
    with (run / "metrics.csv").open("a") as file:
        file.write("150,3,0.2,\n")
    assert "goes on to step 150, the result is that of step 100" in report(run).one("div", role="note").text


# ------------------------------------------------------------------ what is damaged

DAMAGES = {
    "summary.json": [
        (b"", "it is no JSON"),
        (b'{"test/accuracy": 0.7', "it is no JSON"),
        (b"[1]", "it holds no figures by name"),
        (b"[" * 100_000, "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (b" " * (4 * 2**20 + 1), "larger than"),
    ],
    "config.yaml": [
        (b"a: [", "cannot be read as YAML"),
        (b"text", "is no configuration"),
        (b"a: " + b"x" * 70_000, "larger than any configuration"),
        (b"\x00", "cannot be read as YAML"),
    ],
    "metrics.csv": [
        (b"a,b\n1,2\n", "it has no column 'step'"),
        (b"step,\xff\n", "no UTF-8 text"),
        (b"step,epoch,loss\n1,0,many\nx,0,1\n2,1,0.5\n", "2 values are no numbers, or belong to no step"),
        (b"step," + b"a," * 3_000 + b"\n" + b"1\n" * 3_000, "more than 2,000,000 values"),
        (b'step,"' + b"x" * 200_000 + b'"\n', "separated by commas"),
    ],
    "figures/red.png": [
        (b"", "red.png is no PNG file"),
        (b"<svg onload='alert(1)'/>", "red.png is no PNG file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "red.png is no picture that can be read"),
    ],
}


@pytest.mark.parametrize(
    ("name", "contents", "said"), [(name, *damage) for name, damages in DAMAGES.items() for damage in damages]
)
def test_what_is_damaged_is_named_in_a_line_and_the_rest_goes_on(run, name, contents, said, capsys):
    (run / name).write_bytes(contents)
    with pytest.raises(SystemExit) as stopped:
        main([str(run)])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: ")
    assert f"{run / name}" in printed.err
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out.startswith("report    ")
    page = read_page((run / "report.html").read_text())
    assert name.rpartition("/")[2] in page.one("div", role="note").text
    sections = {part.attributes["id"] for part in page.all("section")}
    lost = {"summary.json": {"result", "environment"}, "config.yaml": {"configuration"}, "metrics.csv": {"history"}}
    kept = {"result", "history", "figures", "configuration", "environment"} - lost.get(name, {"figures"})
    assert kept <= sections


def test_half_a_picture_is_none(run):
    picture = run / "figures" / "red.png"
    Image.effect_noise((200, 200), 50).save(picture)
    picture.write_bytes(picture.read_bytes()[:-2000])
    figures, [problem] = read_figures(run)
    assert figures == []
    assert "red.png is damaged" in problem


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "metrics.csv", "figures/red.png", "figures"])
def test_no_link_is_followed(run, name, tmp_path):
    path = run / name
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    [problem] = read_run(run).problems
    assert problem.startswith(str(path))
    assert problem.endswith("is a link, and not followed")


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "metrics.csv", "figures/red.png"])
def test_nothing_waits_for_a_pipe_or_opens_a_folder(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    assert str(run / name) in read_run(run).problems[0]
    (run / name).unlink()
    (run / name).mkdir()
    assert str(run / name) in read_run(run).problems[0]


def test_only_pictures_directly_in_figures_are_taken(run):
    (run / "figures" / "deeper").mkdir()
    for name in ("deeper/blue.png", ".hidden.png", "UPPER.PNG"):
        Image.new("L", (4, 4)).save(run / "figures" / name, "PNG")
    (run / "figures" / "notes.txt").write_text("no figure")
    figures, problems = read_figures(run)
    assert [figure.name for figure in figures] == ["red", "UPPER"]
    assert problems == []


@pytest.mark.parametrize(
    "values",
    [
        {"claims": {"a": 1}, "seconds": "long", "examined": [1], "versions": None, "steps": "x", "experiment": 3},
        {"claims": [1, {}, {"metric": "m"}, {"metric": "m", "bar": True, "reached": True}], "dataset": ["a"]},
        {"claims": [{"metric": "test/accuracy", "bar": 0.5, "reached": False, "value": None, "limit": 1.0}]},
        {"test/loss": None, "test/accuracy": 10**400, "seconds": {"total": None}, "steps": 10**400},
        {"test/loss": {"deep": 1}, "test/accuracy": "high", "versions": {"torch": {"a": {"b": [1, 2]}}}},
        {"extra": json.loads('{"a":' * 400 + "1" + "}" * 400), "": {"": 1}, "seed": True},
    ],
)
def test_a_summary_of_another_form_is_taken_as_far_as_it_goes(run, values):
    (run / "summary.json").write_text(json.dumps({**SUMMARY, **values}))
    found = read_run(run)
    assert found.problems == []
    for runs in ([found], [found, found]):
        page = read_page(render(runs))
        assert "hidden" in page.one(id="configuration").text
        assert bool(page.all(id="result")) == (found.result is not None)


def test_what_was_no_number_is_none(run):
    (run / "summary.json").write_text(json.dumps({**SUMMARY, "test/loss": None}))
    rows = read_table(report(run).one(id="result").one("table"))
    assert rows["test/loss"]["value"].text == "not finite"
    assert rows["test/accuracy"]["value"].text == "0.7500"


# ------------------------------------------------------------------ what is hostile

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\x00\u202e\x1b[2J</style>{{7*7}}"
PLAIN = EVIL.replace("\x00", r"\x00").replace("\u202e", r"\u202e").replace("\x1b", r"\x1b")


def test_whatever_a_run_says_is_text(tmp_path, capsys):
    directory = tmp_path / "x<b>\"'&\u202e\udcff<script>"
    (directory / "figures").mkdir(parents=True)
    name = EVIL.replace("\x00", "").replace("/", "|")
    Image.new("L", (4, 4)).save(directory / "figures" / f"{name}.png")
    claim = {"metric": EVIL, "value": 1.0, "bar": 2.0, "mode": EVIL, "reached": False, "limit": 3.0, "source": EVIL}
    values = {
        "experiment": EVIL,
        "dataset": EVIL,
        "seed": EVIL,
        "device": EVIL,
        "precision": EVIL,
        "checkpoint": EVIL,
        "claims": [claim],
        "versions": {EVIL: EVIL},
        "examined": {EVIL: 1.0},
        "samples": {EVIL: EVIL},
        EVIL: EVIL,
        "seconds": {EVIL: 1.0},
        f"test/{EVIL}": 1.0,
    }
    (directory / "summary.json").write_text(json.dumps(values))
    options = {"model": {EVIL: EVIL}, "trainer": {"a": [EVIL, {EVIL: EVIL}]}, EVIL: EVIL}
    (directory / "config.yaml").write_text(json.dumps(options))
    column = '"' + EVIL.replace('"', '""').replace("\x00", "") + '"'
    (directory / "metrics.csv").write_text(f"step,epoch,{column}\n1,0,1\n2,1,2\n3,2,{EVIL.partition('<img')[0]}\n")
    with pytest.raises(SystemExit):
        main([str(directory), "--title", EVIL.replace("\x00", "")])
    assert "\x1b" not in "".join(capsys.readouterr())
    text = (directory / "report.html").read_text(encoding="utf-8")
    page = read_page(text)
    assert {element.tag for element in page.all()}.isdisjoint({"script", "b", "iframe"})
    assert [image.attributes["src"][:10] for image in page.all("img")] == ["data:image"] * 2
    assert not [name for element in page.all() for name in element.attributes if name.startswith("on")]
    assert page.one(id="environment").text.count(PLAIN) >= 10
    assert PLAIN in page.one(id="configuration").text
    assert page.one("h1").text == PLAIN.replace(r"\x00", "")
    assert not {"\x00", "\x1b", "\u202e"} & set(text)
    assert text.count("</style>") == 1
    assert not page.one(id="configuration").all("code")  # no command is made of somebody else's words


def test_nothing_of_the_environment_is_told(run, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")
    assert "secret-of-mine" not in render([read_run(run)])


# ------------------------------------------------------------------ what is large


def test_a_long_run_is_thinned_without_losing_a_peak(run):
    values = [math.sin(step / 300) for step in range(40_000)]
    values[17_777], values[30_001], values[5] = 9.0, -9.0, math.nan
    lines = [f"{step},{step // 80},{value!r}" for step, value in enumerate(values)]
    (run / "metrics.csv").write_text("\n".join(["step,epoch,val/loss", *lines, ""]))
    history = read_history(run / "metrics.csv")
    assert len(history.epochs) == 500
    curve = history.series["val/loss"]
    assert len(curve.steps) == 40_000
    drawn = thinned(curve)
    assert len(drawn.steps) <= 602
    assert drawn.steps == sorted(set(drawn.steps))
    assert {(17_777, 9.0), (30_001, -9.0), (0, 0.0)} <= set(zip(drawn.steps, drawn.values, strict=True))
    assert drawn.steps[-1] == 39_999
    page = report(run)
    assert len(render([read_run(run)])) < 400_000
    table = read_table(page.one(id="history").one("table"))
    assert len(table) <= 42
    assert {"1", "14", "500"} <= set(table)


def test_many_metrics_are_not_all_drawn(run, monkeypatch):
    monkeypatch.setattr(charts, "_MOST_CHARTS", 3)
    names = [f"val/m{number}" for number in range(60)]
    rows = [",".join([str(step), str(step), *["0.5"] * 60]) for step in (1, 2)]
    (run / "metrics.csv").write_text("\n".join([",".join(["step", "epoch", *names]), *rows, ""]))
    section = report(run).one(id="history")
    assert len(section.all("img")) == 3
    assert section.all("p")[-1].text.startswith("Not drawn: m11, m12,")
    assert section.all("p")[-1].text.endswith(", m29, and 37 more.")
    assert len(section.one("thead").all("th")) == 1 + 24


@pytest.mark.parametrize("values", [[1e308, -1e308, 1.0, 2.0], [math.inf, 1.0, 2.0], [0.0, 0.0], [1e-320, 1.0]])
def test_values_that_no_axis_has_are_left_out(values):
    curve = Series(list(range(len(values))), [value if math.isfinite(value) else math.nan for value in values])
    run = Run(Path("run"), history=History({"train/loss": curve}))
    [chart], _ = charts.charts_of([run], ["run"])
    assert chart.svg.startswith(b"<?xml")
    assert b"nan" not in chart.svg


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["a", "a name of twenty-five chars"]])
def test_names_of_curves_stand_below_them(labels, monkeypatch):
    kept = []
    monkeypatch.setattr(charts, "new_figure", lambda *args: kept.append(new_figure(*args)) or kept[-1])
    runs = [Run(Path(label), history=History({"train/loss": Series([1, 2], [1.0, 0.5])})) for label in labels]
    [chart], _ = charts.charts_of(runs, labels)
    [figure] = kept
    figure.draw_without_rendering()
    [ax], [legend] = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{i}  {label}" for i, label in enumerate(labels, 1)]
    assert legend.get_window_extent().y1 < ax.get_window_extent().y0
    assert legend.get_window_extent().x0 >= 0.0
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert chart.size[1] == round(96 * figure.get_size_inches()[1])


def test_names_that_look_like_formulas_are_names(run):
    (run / "metrics.csv").write_text("step,epoch,$\\frac$,_hidden\n1,0,1,1\n2,1,2,2\n")
    drawn, _ = charts.charts_of([read_run(run)] * 2, ["$x$", "中文"])
    assert [chart.metric for chart in drawn] == ["$\\frac$", "_hidden"]


# ------------------------------------------------------------------ the parts


def test_steps_are_in_order_and_a_row_cut_short_is_left_out(run):
    (run / "metrics.csv").write_text("step,epoch,a,b\n20,1,2,\n10,0,1,nan\n20,1,3,\n30,2,4")
    history = read_history(run / "metrics.csv")
    assert history.series["a"] == Series([10, 20, 20], [1.0, 2.0, 3.0])
    assert history.series["b"].finite == []
    assert history.epochs[1] == {"a": 3.0}
    assert (history.last_step, history.unreadable) == (20, 0)


def test_figures_have_a_sensible_order():
    names = ["zebra", "gradients", "Alpha", "roc", "confusion_matrix", "learning_curves", "worst_images"]
    random.Random(0).shuffle(names)
    ordered = ["learning_curves", "confusion_matrix", "worst_images", "roc", "gradients", "Alpha", "zebra"]
    assert sorted(names, key=order) == ordered


def test_the_best_is_marked_where_there_is_one():
    assert best([0.5, None, 0.7, 0.7, math.nan], "max") == {2, 3}
    assert best([0.5, 0.2], "min") == {1}
    assert best([0.5, 0.5], "max") == best([0.5], "max") == best([1.0, 2.0], None) == set()
    assert deviating(["a", "b", "a"]) == {1}
    assert deviating(["a", "b"]) == set()
    modes = {name: mode_of(name, []) for name in ("test/loss", "val/top2_accuracy", "test/cer", "trained/quickly")}
    assert modes == {"test/loss": "min", "val/top2_accuracy": "max", "test/cer": "min", "trained/quickly": None}


def test_labels_are_as_short_as_can_be(tmp_path):
    assert labels([tmp_path / "a" / "1"]) == ["1"]
    assert labels([tmp_path / "a" / "1", tmp_path / "a" / "2"]) == ["1", "2"]
    assert labels([tmp_path / "a" / "1", tmp_path / "b" / "1", tmp_path / "b" / "2"]) == ["a/1", "b/1", "b/2"]


def test_it_is_no_experiment():
    assert "report" not in list_experiments()
