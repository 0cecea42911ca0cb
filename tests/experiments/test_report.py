import base64
import csv
import json
import math
import os
import shutil
from pathlib import Path

import pytest
from conftest import SHORT
from page_reader import read_page, read_table

from experiments.__main__ import list_experiments
from experiments.report.__main__ import main
from experiments.report.runs import find_runs, read_run
from zoo.figures.publish import publish
from zoo.figures.style import new_figure


def draw(run, *names):
    for name in names:
        publish(new_figure(name, 3.0, 2.0), name, Path(run) / "figures", [], step=1)


@pytest.fixture(scope="module")
def finished(run_once, tmp_path_factory):
    """A run of XOR with three figures."""
    directory = tmp_path_factory.mktemp("report") / "finished"
    shutil.copytree(run_once("xor", "--trainer.max_epochs", "4").directory, directory)
    draw(directory, "zebra", "decision_boundary", "roc_curve")
    return directory


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may damage, without curves, which take a while to draw."""
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("metrics.csv")))


@pytest.fixture(scope="module")
def page(finished):
    main([str(finished)])
    return read_page((finished / "report.html").read_text(encoding="utf-8"))


def report(*args):
    return read_page(main([*map(str, args)]).read_text(encoding="utf-8"))


def change(run, **values):
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, **values}))


def numbers(cells):
    return {name: float(cell.one("data").attributes["value"]) for name, cell in cells.items() if cell.all("data")}


# ------------------------------------------------------------------ one run


def test_the_result_is_that_of_the_summary_to_the_last_digit(page, finished, summary_of):
    summary = summary_of(finished)
    table = page.one(id="result").one("table")
    shown = {name: float(cells["value"].one("data").attributes["value"]) for name, cells in read_table(table).items()}
    assert shown == {name: value for name, value in {**summary, **summary["examined"]}.items() if "/" in name}
    assert len(shown) == 6
    [first, second] = page.one("ul", class_="claims").all("li")
    assert "✓ reached" in first.text
    assert "at least 1.0000; exactly 1.0000, the best possible" in first.text
    distance = 0.75 - summary["examined"]["perceptron/accuracy"]
    assert f"at most 0.7500; {distance:.2g} below 0.7500, three corners of four" in second.text
    assert "2 of 2 claims reached" in page.one("header").text


def test_facts_are_those_of_the_summary(page, finished, summary_of):
    summary = summary_of(finished)
    rows = page.one(id="environment").all("tr")
    facts = {row.one("th").text: row.one("td").text for row in rows}
    assert facts == {
        "dataset": "xor",
        "train samples": "2,800",
        "val samples": "400",
        "test samples": "800",
        "seed": "0",
        "epochs": "4",
        "steps": "224",
        "parameters": "65",
        "checkpoint": summary["checkpoint"],
        **{name: f"{seconds:.1f} s" for name, seconds in summary["seconds"].items()},
        "device": summary["device"],
        "precision": "32-true",
        **summary["versions"],
    }


def test_every_option_is_shown(page, finished):
    section = page.one(id="configuration")
    shown = {row.one("th").text: row.one("td").text for row in section.all("tr")}
    assert shown["optimizer"] == "torch.optim.AdamW"
    assert shown["optimizer.lr"] == "0.03"
    assert shown["hidden"] == "[16]"
    assert shown["seed_everything"] == "0"
    assert shown["max_epochs"] == "4"
    unset = ", ".join(text.text for text in section.all("p", class_="muted"))
    assert "gradient_clip_val" in unset
    assert section.one("p", class_="again").text == (
        f"The same run again: python -m experiments.xor --config {finished / 'config.yaml'}"
    )


def test_figures_come_in_order_and_are_the_files(page, finished):
    figures = page.one(id="figures").all("figure")
    assert [figure.one("figcaption").text for figure in figures] == ["ROC curve", "Decision boundary", "Zebra"]
    image = figures[1].one("img")
    assert image.attributes["alt"] == "Decision boundary of xor"
    assert (image.attributes["width"], image.attributes["height"]) == ("360", "240")
    kind, _, data = image.attributes["src"].partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data) == (finished / "figures" / "decision_boundary.png").read_bytes()


def test_the_history_is_that_of_the_csv(page, finished):
    with (finished / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["val/loss"]]
    epochs = read_table(page.one(id="history").one("table"))
    assert list(epochs) == ["1", "2", "3", "4"]
    shown = [numbers(cells)["val/loss"] for cells in epochs.values()]
    assert shown == [float(row["val/loss"]) for row in logged]
    marked = [epoch for epoch, cells in epochs.items() if "best" in cells["val/loss"].text]
    assert marked == [str(1 + shown.index(min(shown)))]
    [loss, *_] = page.one(id="history").all("img")
    assert loss.attributes["src"].startswith("data:image/svg+xml;base64,")
    assert f"validation from {shown[0]:.4f} to {shown[-1]:.4f}" in loss.attributes["alt"]


def test_the_page_needs_nothing_beside_itself(page):
    for element in page.all():
        for name, value in element.attributes.items():
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert value.startswith(("data:image/", "#")), (element.tag, name, value[:80])
            assert not name.startswith("on")
    assert not [element for element in page.all() if element.tag in ("script", "link", "iframe", "object", "base")]
    style = "".join(page.one("style").children)
    assert "url(" not in style
    assert "@import" not in style
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_everybody_can_use_the_page(page):
    assert page.one("html").attributes["lang"] == "en"
    assert [page.one(tag).tag for tag in ("header", "nav", "main", "footer", "h1")]
    assert all(image.attributes["alt"] for image in page.all("img"))
    assert all(cell.attributes["scope"] in ("row", "col") for cell in page.all("th"))
    assert all(table.all("caption") or table.attributes["aria-label"] for table in page.all("table"))
    links = {link.attributes["href"].removeprefix("#") for link in page.all("a")}
    assert links == {"content", "result", "history", "figures", "configuration", "environment"}
    assert links <= {element.attributes.get("id") for element in page.all()}


def test_the_same_run_makes_the_same_page(finished, page):
    written = (finished / "report.html").read_bytes()
    assert main([str(finished), "--output", "again.html"]).read_bytes() == written


def test_curves_that_a_run_drew_itself_take_the_place_of_ours(finished, run):
    shutil.copy(finished / "metrics.csv", run)
    draw(run, "learning_curves")
    page = report(run)
    assert [image.attributes["alt"] for image in page.one(id="history").all("img")] == ["Learning curves of xor"]
    assert "Learning curves" not in page.one(id="figures").text


def test_a_claim_that_is_missed_says_so_in_words(run, summary_of):
    [claim, other] = summary_of(run)["claims"]
    change(run, claims=[{**claim, "value": 0.98, "reached": False}, other])
    page = report(run)
    missed = page.one("ul", class_="claims").all("li")[0]
    assert "✗ short of the claim" in missed.text
    assert "0.02 below 1.0000" in missed.text
    assert "1 of 2 claims reached" in page.one("header").text


# ------------------------------------------------------------------ several runs


@pytest.fixture(scope="module")
def others(run_once):
    """The same run under another seed, and with another rate as well."""
    options = ("--trainer.max_epochs", "4", "--seed_everything", "1")
    seeded = run_once("xor", *options).directory
    return seeded, run_once("xor", *options, "--model.optimizer.lr", "0.001").directory


def test_results_are_side_by_side_and_the_best_is_marked(finished, others, summary_of):
    page = report(finished, *others)
    assert page.one("h1").text == "3 runs of xor"
    table = page.one(id="result").all("table")[0]
    assert "experiment: xor; data: xor" in table.one("caption").text
    rows = read_table(table)
    losses = {name: numbers(cells)["test/loss"] for name, cells in rows.items()}
    directories = dict(zip(losses, (finished, *others), strict=True))
    assert losses == {name: summary_of(directory)["test/loss"] for name, directory in directories.items()}
    marked = [name for name, cells in rows.items() if "best" in cells["test/loss"].text]
    assert marked == [min(losses, key=losses.get)]
    assert not [name for name, cells in rows.items() if "best" in cells["perceptron/accuracy"].text]


def test_what_differs_is_apart_from_what_does_not(finished, others):
    section = report(finished, *others).one(id="configuration")
    [table, *_] = section.all("table")
    rows = {name: [cell.text for cell in cells.values()] for name, cells in read_table(table).items()}
    assert rows == {"seed_everything": ["0", "1", "1"], "model.optimizer.lr": ["0.03", "0.03", "0.001"]}
    assert [mark.text for mark in table.all("mark")] == ["0", "0.001"]
    same = {row.one("th").text for row in section.one("details").all("tr")}
    assert "optimizer.weight_decay" in same
    assert not {"seed_everything", "optimizer.lr"} & same


def test_seeds_have_a_mean_and_a_deviation(finished, others, summary_of):
    table = report(finished, others[0]).one(id="result").all("table")[0]
    first, second = (summary_of(directory)["test/loss"] for directory in (finished, others[0]))
    mean, deviation = (first + second) / 2, abs(first - second) / math.sqrt(2)
    [foot] = table.all("tfoot")
    assert foot.one("th").text == "mean ± sd of 2 seeds"
    assert f"{mean:.4f} ± {deviation:.2g}" in [cell.text for cell in foot.all("td")]
    assert not report(finished, others[1]).one(id="result").all("tfoot")


def test_curves_of_all_runs_are_in_one_chart(finished, others):
    images = report(finished, *others).one(id="history").all("img")
    [loss] = [image for image in images if image.attributes["alt"].startswith("val/loss over")]
    assert all(f"{place} " in loss.attributes["alt"] for place in (1, 2, 3))
    assert loss.attributes["alt"].count(" from ") == 3


def test_figures_of_one_name_are_together(finished, others, run):
    (run / "figures" / "zebra.png").unlink()
    section = report(finished, run).one(id="figures")
    assert [heading.text for heading in section.all("h3")] == ["ROC curve", "Decision boundary", "Zebra"]
    assert [caption.text for caption in section.all("figcaption")] == [*["1 finished", "2 run"] * 2, "1 finished"]


def test_runs_on_different_data_are_not_ranked(run_once, finished):
    digits = run_once("mnist_softmax", *SHORT).directory
    page = report(finished, digits)
    assert page.one("h1").text == "2 runs of 2 experiments"
    assert "different data" in page.one(id="result").one("div", role="note").text
    assert not page.one(id="result").all("span", class_="best")
    rows = read_table(page.one(id="result").all("table")[0])
    assert [cells["data"].text for cells in rows.values()] == ["xor", "digits"]
    assert [cells["test/auroc"].text for cells in rows.values()][1] == "—"


# ------------------------------------------------------------------ the command line


def test_where_the_page_goes(run, tmp_path, capsys):
    assert main([str(run)]) == run / "report.html"
    assert capsys.readouterr().out.startswith(f"report    {run / 'report.html'}: 1 run, 3 figures, ")
    other = shutil.copytree(run, tmp_path / "other")
    assert main([str(run), str(other)]) == Path("report.html")
    assert (tmp_path / "report.html").is_file()
    assert main([str(run), "--output", "other.HTML", "--title", "Exclusive <or>"]) == Path("other.HTML")
    page = read_page(Path("other.HTML").read_text())
    assert page.one("h1").text == page.one("title").text == "Exclusive <or>"


def test_a_run_is_meant_by_what_is_in_it(run, tmp_path):
    names = ("config.yaml", "figures/zebra.png", "checkpoints/last.ckpt", "figures", ".")
    found, notes = find_runs([str(run / name) for name in names])
    assert [directory.resolve() for directory in found] == [run]
    assert len(notes) == len(names) - 1


def test_last_is_the_newest_run(run, tmp_path):
    newest = tmp_path / "runs" / "xor" / "2026-02-01_00-00-00"
    shutil.copytree(run, tmp_path / "runs" / "xor" / "2026-03-01_00-00-00")
    shutil.copytree(run, newest)
    (newest / "summary.json").unlink()
    for file in newest.parent.glob("2026-03*/*"):
        os.utime(file, (1, 1))
    assert find_runs(["last"]) == ([newest.relative_to(tmp_path)], [])
    assert read_run(newest).experiment == "xor"  # of the folder, where there is no summary


def test_a_run_given_twice_is_shown_once(run, capsys):
    (run.parent / "link").symlink_to(run)
    page = report(run, run / "config.yaml", run.parent / "link")
    assert page.one("h1").text == "xor"
    assert capsys.readouterr().err.count("was named before") == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "RUN_DIR"),
        (["nowhere"], "there is no run nowhere"),
        (["a\x1b[2J\nb"], r"there is no run a\x1b[2J b"),
        (["x" * 300], "cannot be read: File name too long"),
        (["."], "is no run: there is neither config.yaml, metrics.csv nor summary.json"),
        (["file"], "file is no run"),
        (["group"], "group is no run, but holds 1: give those, such as group/one"),
        (["last"], "there is no last run"),
        (["group/one", "--output", "missing/report.html"], "--output: there is no directory"),
        (["group/one", "--output", "group/one/config.yaml"], "--output: must end in .html"),
        (["group/one", "--output", "folder.html"], "folder.html is a directory"),
        (["group/one", "--outputs", "x.html"], "unrecognized arguments: --outputs"),
    ],
)
def test_what_cannot_be_used_is_answered_in_a_line(args, said, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "group" / "one").mkdir(parents=True)
    (tmp_path / "group" / "one" / "config.yaml").write_text("seed_everything: 1\n")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert (tmp_path / "group" / "one" / "config.yaml").read_text() == "seed_everything: 1\n"


def test_a_page_that_cannot_be_written_is_said_and_nothing_left(run, capsys):
    (run / "report.html").write_text("before")
    long = "x" * 250 + ".html"  # the name of the file beside it is too long
    with pytest.raises(SystemExit) as stopped:
        main([str(run), "--output", str(run / long)])
    assert stopped.value.code == 1
    assert "could not be written: File name too long" in capsys.readouterr().err
    assert (run / "report.html").read_text() == "before"
    assert not list(run.glob("*.new"))


def test_it_is_no_experiment():
    assert "report" not in list_experiments()
