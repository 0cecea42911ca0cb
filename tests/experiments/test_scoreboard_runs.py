"""Runs, and what is made of them: a process of milliseconds in the place of an experiment, and a real one."""

import contextlib
import dataclasses
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.__main__ import list_experiments
from experiments.cli_errors import UsageError
from experiments.scoreboard import circumstances
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.about import About
from experiments.scoreboard.board import Board, BoardError, board_locked, read_board
from experiments.scoreboard.check import check
from experiments.scoreboard.row import Finished
from experiments.scoreboard.runs import RunError, Runs, Unfinished
from experiments.scoreboard.series import Series, Task
from zoo.checkpointing import CheckpointError

# Leaves a summary, as a run does; the seed decides the figures.
STUB = """
import json, pathlib, sys
name, seed, directory, *options = sys.argv[1:]
folder = pathlib.Path(directory)
folder.mkdir(parents=True)
accuracy = 0.9 + int(seed) / 100
claim = {"metric": "test/accuracy", "value": accuracy, "bar": 0.9, "limit": 0.99, "source": "the best possible"}
claim |= {"mode": "max", "reached": True, "distance_to_limit": 0.99 - accuracy}
summary = {"experiment": name, "seed": int(seed), "dataset": "xor", "test/accuracy": accuracy, "examined": {}}
summary |= {"claims": [claim], "seconds": {"total": 5.0}, "parameters": 7, "device": "cpu", "precision": "32-true"}
(folder / "summary.json").write_text(json.dumps(summary))
print("result", *options)
"""
XOR = About("xor", "Exclusive or", "MLP", "test/accuracy", quick=True)
MOONS = About("binary_moons", "Two half moons", "MLP", "test/accuracy", quick=True)


def python(code, *arguments):
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def stub(name, seed, directory, options):
    return python(STUB, name, str(seed), str(directory), *options)


class Experiments:
    """The stub, or for some seeds another program; counts what was started."""

    def __init__(self, **programs):
        self.programs = programs
        self.started = []

    def __call__(self, name, seed, directory, options):
        if directory != Path():  # else only the command is asked for
            self.started.append((name, seed))
        code = self.programs.get(f"{name}_{seed}")
        return stub(name, seed, directory, options) if code is None else python(code, str(directory))


def series(tmp_path, experiments, *tasks, seeds=3):
    runs = Runs(tmp_path / "runs", experiments)
    made = [Task(about, range(seeds)) for about in tasks or (XOR,)]
    return Series(made, runs, tmp_path, list_experiments())


def rows(tmp_path):
    return read_board(tmp_path / "scoreboard.json").rows


def never(dataset):
    return False


# ---------------------------------------------------------------------- one run


def test_a_run_that_came_to_its_end_is_found_again(tmp_path):
    runs = Runs(tmp_path, stub)
    assert runs.find("xor", 0, stand_in_is_needless=never) == Unfinished(None)
    summary = runs.make("xor", 0)
    found = runs.find("xor", 0, stand_in_is_needless=never)
    assert isinstance(found, Finished)
    assert found.summary == summary
    assert found.circumstances["machine"]["cores"] >= 1
    assert (tmp_path / "xor" / "seed-0.log").read_text() == "result --tracking csv\n"


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"code": "0"}, "its code was changed since"),
        ({"command": ["-m", "other"]}, "it had other options"),
        ({"device": "an abacus"}, "it was on an abacus"),
        ({"versions": {"torch": "1.0"}}, "jsonargparse was none, now "),
        ({"state": "failed"}, "it failed"),
        ({"state": 3}, "it was interrupted"),
        ({"machine": None}, "it was interrupted"),
    ],
)
def test_a_run_of_something_else_does_not_count(change, again, tmp_path):
    runs = Runs(tmp_path, stub)
    runs.make("xor", 0)
    path = tmp_path / "xor" / "seed-0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found = runs.find("xor", 0, stand_in_is_needless=never)
    assert isinstance(found, Unfinished)
    assert found.again.startswith(again)


@pytest.mark.parametrize(
    ("summary", "again"),
    [
        (None, "it was interrupted"),
        ("{", "its summary is damaged"),
        ('{"experiment": "xor"}', "its summary is damaged"),
    ],
)
def test_a_damaged_run_does_not_count(summary, again, tmp_path):
    runs = Runs(tmp_path, stub)
    runs.make("xor", 0)
    path = tmp_path / "xor" / "seed-0" / "summary.json"
    path.unlink() if summary is None else path.write_text(summary)
    assert runs.find("xor", 0, stand_in_is_needless=never) == Unfinished(again)


def test_a_run_of_another_seed_in_its_place_does_not_count(tmp_path):
    runs = Runs(tmp_path, stub)
    runs.make("xor", 0)
    path = tmp_path / "xor" / "seed-0" / "summary.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert runs.find("xor", 0, stand_in_is_needless=never) == Unfinished("its directory holds another run")


def test_a_run_on_stand_in_data_counts_until_the_data_are_there(tmp_path):
    runs = Runs(tmp_path, stub)
    runs.make("xor", 0)
    assert isinstance(runs.find("xor", 0, stand_in_is_needless=never), Finished)
    found = runs.find("xor", 0, stand_in_is_needless=lambda dataset: dataset == "xor")
    assert found == Unfinished("it was on xor")


@pytest.mark.parametrize("damage", ["[]", "", "\x00", "[" * 100_000])
def test_of_a_run_with_a_damaged_record_nothing_is_known(damage, tmp_path):
    runs = Runs(tmp_path, stub)
    runs.make("xor", 0)
    (tmp_path / "xor" / "seed-0.json").write_text(damage)
    assert runs.find("xor", 0, stand_in_is_needless=never) == Unfinished("it was interrupted")
    runs.make("xor", 0)  # which takes the place of what is there
    assert isinstance(runs.find("xor", 0, stand_in_is_needless=never), Finished)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; print('x'); sys.exit('error: no space left on device')", "no space left on device (exit code 1)"),
        ("raise ValueError('on a\\x1b[2J line')", "ValueError: on a\\x1b[2J line (exit code 1)"),
        ("import sys; sys.exit(3)", "it said nothing (exit code 3)"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("pass", "it left no summary.json"),
        ("print('error: ' + 'x' * 100_000); raise SystemExit(1)", f"{'x' * 300} (exit code 1)"),
    ],
)
def test_a_run_that_fails_says_why(code, reason, tmp_path):
    runs = Runs(tmp_path, Experiments(xor_0=code))
    with pytest.raises(RunError) as failed:
        runs.make("xor", 0)
    assert str(failed.value) == reason
    assert runs.find("xor", 0, stand_in_is_needless=never) == Unfinished("it failed")


def test_a_run_that_is_stopped_leaves_no_process_behind(tmp_path):
    code = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "import os; os.kill(os.getppid(), __import__('signal').SIGUSR1)\n"
        "child.wait()"
    )
    runs = Runs(tmp_path / "runs", Experiments(xor_0=code))

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            runs.make("xor", 0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(500):
        status = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(OSError):
            if status.read_text().split()[2] != "Z":
                time.sleep(0.01)
                continue
        break
    else:
        pytest.fail("what the run had started is still there")
    assert runs.find("xor", 0, stand_in_is_needless=never) == Unfinished("it was interrupted")


# ---------------------------------------------------------------------- the folder


def test_a_folder_is_one_scoreboards_at_a_time(tmp_path):
    one, other = Runs(tmp_path / "runs").locked(), Runs(tmp_path / "runs").locked()
    with one, pytest.raises(UsageError, match="in use by another scoreboard"), other:
        pass
    with Runs(tmp_path / "runs").locked():  # and free again
        pass


def test_a_run_that_outlives_its_scoreboard_keeps_the_folder(tmp_path):
    off = tmp_path / "off"
    leaves_another = "import os, pathlib, sys, time\nif os.fork(): os._exit(0)\n" + (
        f"while not pathlib.Path({str(off)!r}).exists(): time.sleep(0.01)"
    )
    runs = Runs(tmp_path / "runs", Experiments(xor_0=leaves_another))
    with runs.locked(), pytest.raises(RunError):
        runs.make("xor", 0)
    with pytest.raises(UsageError, match="or by a run that one left behind"), Runs(tmp_path / "runs").locked():
        pass
    off.touch()
    for _ in range(500):
        with contextlib.suppress(UsageError), Runs(tmp_path / "runs").locked():
            break
        time.sleep(0.01)
    else:
        pytest.fail("the folder is still in use")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="is not empty, and no folder of a scoreboard"), Runs(tmp_path).locked():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="cannot be used"), Runs(tmp_path / "mine.txt" / "runs").locked():
        pass


# ---------------------------------------------------------------------- all of them


def test_every_seed_is_run_once_and_the_board_written_behind_each_experiment(tmp_path, capsys):
    experiments = Experiments()
    assert series(tmp_path, experiments, XOR, MOONS).run()
    assert experiments.started == [(name, seed) for name in ("xor", "binary_moons") for seed in range(3)]
    assert rows(tmp_path)["xor"].figures["test/accuracy"].mean == pytest.approx(0.91)
    assert (tmp_path / "SCOREBOARD.md").read_text().count("`xor`") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "runs      0 of 6 runs are there; 2 experiments, which were never timed"
    assert lines[1] == (
        "1/6  xor          seed 0    90.00 %     5.0 s  about 14 s left, and binary_moons, which was never timed"
    )
    assert lines[4] == "= xor: test accuracy 91.00 % ± 1.00, 5.0 s ± 0.0 (3 seeds)"
    assert lines[-2].endswith("92.00 %     5.0 s  nothing left")
    assert all("\r" not in line and "\x1b" not in line for line in lines)


def test_what_is_there_is_not_run_again(tmp_path, capsys):
    assert series(tmp_path, Experiments()).run()
    more = Experiments()
    assert series(tmp_path, more, seeds=4).run()
    assert more.started == [("xor", 3)]
    assert "3 of 4 runs are there; about 7 s left" in capsys.readouterr().out
    none = Experiments()
    assert series(tmp_path, none, seeds=2).run()
    assert none.started == []
    assert rows(tmp_path)["xor"].seeds == (0, 1, 2, 3)


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    broken = Experiments(xor_1="raise SystemExit('error: out of luck')")
    assert not series(tmp_path, broken, XOR, MOONS).run()
    assert len(broken.started) == 6
    held = rows(tmp_path)
    assert held["xor"].failed == {1: "out of luck (exit code 1)"}
    assert held["xor"].seeds == (0, 2)
    assert held["binary_moons"].is_complete
    out = capsys.readouterr().out
    assert "2/6  xor          seed 1  FAILED: out of luck (exit code 1)" in out
    assert "! xor: 1 of 3 seeds failed: out of luck (exit code 1)" in out
    assert "**1 of 3 seeds failed: out of luck (exit code 1)**" in (tmp_path / "SCOREBOARD.md").read_text()
    mended = Experiments()
    assert series(tmp_path, mended, XOR, MOONS).run()
    assert mended.started == [("xor", 1)]
    assert "(again: it failed)" in capsys.readouterr().out


class Interrupted(Experiments):
    def __call__(self, name, seed, directory, options):
        if directory != Path() and (name, seed) == ("xor", 2):
            raise KeyboardInterrupt
        return super().__call__(name, seed, directory, options)


def test_an_interruption_leaves_what_there_is_marked_as_incomplete(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        series(tmp_path, Interrupted()).run()
    assert rows(tmp_path)["xor"].remarks == ["incomplete: 2 of 3 seeds"]
    assert series(tmp_path, Experiments()).run()
    assert rows(tmp_path)["xor"].is_complete


def test_an_interruption_leaves_a_complete_row_in_its_place(tmp_path):
    assert series(tmp_path, Experiments()).run()
    with (tmp_path / "runs/xor/seed-2.json").open("w") as file:
        file.write("")
    with pytest.raises(KeyboardInterrupt):
        series(tmp_path, Interrupted()).run()
    assert rows(tmp_path)["xor"].is_complete


def test_fewer_seeds_do_not_take_the_place_of_a_complete_row(tmp_path, capsys):
    few = dataclasses.replace(XOR, seeds=3)
    assert series(tmp_path, Experiments(), few).run()
    assert series(tmp_path, Experiments(), few, seeds=2).run()
    assert rows(tmp_path)["xor"].seeds == (0, 1, 2)
    assert "! xor: the board keeps the row that it had, of 3 seeds, not 2\n" in capsys.readouterr().out
    assert series(tmp_path, Experiments(), few, seeds=4).run()
    assert rows(tmp_path)["xor"].seeds == (0, 1, 2, 3)
    assert series(tmp_path, Experiments(), few).run()  # as many as are usual: the newest counts
    assert rows(tmp_path)["xor"].seeds == (0, 1, 2)


def test_seeds_that_fail_leave_a_complete_row_in_its_place(tmp_path, capsys):
    assert series(tmp_path, Experiments()).run()
    (tmp_path / "runs/xor/seed-1.json").unlink()
    assert not series(tmp_path, Experiments(xor_1="raise SystemExit('error: out of luck')")).run()
    assert rows(tmp_path)["xor"].is_complete
    out = capsys.readouterr().out
    assert "1 of 3 seeds failed: out of luck" in out
    assert "! xor: the board keeps the row that it had\n" in out


def test_of_two_rows_that_are_incomplete_the_one_of_more_seeds_stays(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        series(tmp_path, Interrupted()).run()
    for seed in (0, 1):
        (tmp_path / f"runs/xor/seed-{seed}.json").unlink()
    assert not series(tmp_path, Experiments(xor_1="raise SystemExit(1)", xor_2="raise SystemExit(1)")).run()
    assert rows(tmp_path)["xor"].seeds == (0, 1)
    assert not series(tmp_path, Experiments(xor_2="raise SystemExit(1)")).run()  # as many, and it says why no more
    assert rows(tmp_path)["xor"].remarks[0].startswith("1 of 3 seeds failed")


def test_two_scoreboards_with_one_board_lose_none_of_their_rows(tmp_path):
    other = tmp_path / "other"
    assert series(other, Experiments(), MOONS).run()
    ours = series(tmp_path, Experiments(), XOR)
    running = threading.Thread(target=ours.run)
    with board_locked(tmp_path):
        board = read_board(tmp_path / "scoreboard.json")
        running.start()
        running.join(1.0)
        assert (tmp_path / "runs/xor/seed-0.json").exists()
        board.with_row(rows(other)["binary_moons"]).write(tmp_path / "scoreboard.json")
    running.join()
    assert set(rows(tmp_path)) == {"xor", "binary_moons"}


def test_a_board_that_another_keeps_is_an_error_that_names_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.scoreboard.board._PATIENCE", 0.01)
    with board_locked(tmp_path), pytest.raises(BoardError, match=r"has held .*scoreboard\.json\.lock"):
        series(tmp_path, Experiments()).run()


def test_other_rows_are_kept_and_those_of_no_experiment_leave_the_board(tmp_path):
    assert series(tmp_path, Experiments(), XOR).run()
    path = tmp_path / "scoreboard.json"
    held = json.loads(path.read_text())
    held["rows"]["gone"] = held["rows"]["xor"]
    path.write_text(json.dumps(held))
    before = rows(tmp_path)["xor"]
    assert series(tmp_path, Experiments(), MOONS).run()
    assert set(rows(tmp_path)) == {"xor", "binary_moons"}
    assert rows(tmp_path)["xor"] == before


def test_a_stand_in_never_takes_the_place_of_the_real_row(tmp_path, capsys):
    real = dataclasses.replace(XOR, datasets=frozenset({"xor"}))
    other = dataclasses.replace(XOR, datasets=frozenset({"MNIST"}))
    assert not series(tmp_path, Experiments(), other).run()  # there is none yet: it is marked
    assert rows(tmp_path)["xor"].stand_in
    assert series(tmp_path, Experiments(), real).run()
    assert not series(tmp_path, Experiments(), other).run()
    assert not rows(tmp_path)["xor"].stand_in
    assert "! xor: the board keeps the row that it had" in capsys.readouterr().out


def test_what_is_known_to_be_quick_comes_first(tmp_path):
    assert series(tmp_path, Experiments(), MOONS, seeds=1).run()
    order = [task.about.name for task in series(tmp_path, Experiments(), XOR, MOONS).tasks]
    assert order == ["binary_moons", "xor"]


def test_a_board_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "SCOREBOARD.md").mkdir()
    with pytest.raises(CheckpointError, match=r"SCOREBOARD\.md could not be written"):
        series(tmp_path, Experiments()).run()
    assert rows(tmp_path)["xor"].is_complete  # and the runs are there


# ---------------------------------------------------------------------- the code that is run


ONE = '''"""One."""
from experiments.shared import helper
import zoo.parts
A = Experiment(seeds=5)
'''


@pytest.fixture
def checkout(tmp_path):
    files = {
        "experiments/__init__.py": "",
        "experiments/one.py": ONE,
        "experiments/shared.py": "def helper():\n    '''Help.'''\n    return 1\n",
        "experiments/two.py": "B = 1\n",
        "zoo/__init__.py": "from zoo import core\n",
        "zoo/core.py": "C = 1\n",
        "zoo/parts/__init__.py": "D = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("experiments/one.py", ONE.replace("One.", "Two.").replace("5)", "7)  # more")),
        ("experiments/shared.py", "def helper():\n    return 1\n"),
        ("experiments/two.py", "B = 2\n"),
        ("experiments/scoreboard.py", "E = 2\n"),
    ],
)
def test_words_and_other_experiments_do_not_change_the_code(name, text, checkout):
    before = circumstances.code_digest("one", checkout)
    (checkout / name).write_text(text)
    assert circumstances.code_digest("one", checkout) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("experiments/shared.py", "def helper():\n    return 2\n"),
        ("experiments/__init__.py", "E = 1\n"),
        ("zoo/core.py", "C = 2\n"),
        ("zoo/parts/__init__.py", "D = 2\n"),
    ],
)
def test_whatever_is_imported_changes_the_code(name, text, checkout):
    before = circumstances.code_digest("one", checkout)
    (checkout / name).write_text(text)
    assert circumstances.code_digest("one", checkout) != before


def test_weights_that_an_experiment_begins_with_are_part_of_its_code(checkout):
    weights = checkout / "zoo/pretrained/small.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    (checkout / "experiments/two.py").write_text('F = Model.from_pretrained("small", freeze=None)\n')
    before = [circumstances.code_digest(name, checkout) for name in ("one", "two")]
    weights.write_bytes(b"2")
    after = [circumstances.code_digest(name, checkout) for name in ("one", "two")]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_without_git_there_is_no_revision(tmp_path):
    assert circumstances.revision(tmp_path) == circumstances.Revision(None, clean=False)


def test_the_board_itself_does_not_make_a_checkout_unclean(checkout):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(checkout), *identity, *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    clean = circumstances.revision(checkout)
    assert (len(clean.commit), clean.clean) == (40, True)
    (checkout / "scoreboard.json").write_text("{}")
    assert circumstances.revision(checkout) == clean
    (checkout / "zoo/core.py").write_text("C = 3\n")
    assert circumstances.revision(checkout) == circumstances.Revision(clean.commit, clean=False)


# ---------------------------------------------------------------------- CI's check


def checked(tmp_path, experiments, **changes):
    assert series(tmp_path, Experiments(), XOR, seeds=5).run()
    path = tmp_path / "scoreboard.json"
    held = json.loads(path.read_text())
    held["rows"]["xor"] |= changes
    path.write_text(json.dumps(held))
    return check(read_board(path), ["xor"], Runs(tmp_path / "check", experiments))


def test_a_figure_in_its_interval_passes(tmp_path, capsys):
    assert checked(tmp_path, Experiments())
    # 0.92, deviation sqrt(0.00025): 8.611 * 0.0158 * sqrt(1.2) = 0.1491
    assert "in        xor: test accuracy 90.00 %, recorded 77.09 % to 100.00 %" in capsys.readouterr().out


def test_a_figure_outside_its_interval_fails(tmp_path, capsys):
    worse = STUB.replace("0.9 +", "0.77 +").replace("sys.argv[1:]", "'xor', '0', sys.argv[1]")
    assert not checked(tmp_path, Experiments(xor_0=worse))
    assert "OUTSIDE   xor: test accuracy 77.00 %, recorded 77.09 % to 100.00 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stand_in": True}, "MISSING   xor: the board has no interval of it (on xor, a stand-in"),
        ({"wanted": 6}, "MISSING   xor: the board has no interval of it (incomplete: 5 of 6 seeds)"),
        ({"claims": []}, "CHANGED   xor: its claims are no longer those of the board"),
        ({"dataset": "other"}, "FAILED    xor: it ran on xor, not on other"),
    ],
)
def test_what_cannot_be_checked_fails_and_says_why(changes, said, tmp_path, capsys):
    assert not checked(tmp_path, Experiments(), **changes)
    assert said in capsys.readouterr().out


def test_a_run_that_fails_and_a_row_that_is_missing_fail_the_check(tmp_path, capsys):
    assert not checked(tmp_path, Experiments(xor_0="raise SystemExit('error: no')"))
    assert "FAILED    xor: no (exit code 1)" in capsys.readouterr().out
    board = Board({"other": rows(tmp_path)["xor"]})
    assert not check(board, ["xor"], Runs(tmp_path / "check", Experiments()))
    assert "MISSING   xor: the board has no row of it" in capsys.readouterr().out


def test_without_mnist_its_part_is_skipped_and_says_so(tmp_path, capsys):
    experiments = Experiments(xor_0="raise SystemExit('error: never started')")
    assert checked(tmp_path, experiments, dataset="MNIST")
    assert "skipped   xor: there is no data/MNIST/raw/" in capsys.readouterr().out
    assert experiments.started == []


def test_without_a_board_there_is_nothing_to_check():
    with pytest.raises(BoardError, match=r"there is no scoreboard\.json"):
        check(Board(), ["xor"])


# ---------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "0"], "argument --seeds: expected a number of seeds from 1 to 1000, got '0'"),
        (["--seeds", "-1"], "argument --seeds: expected a number of seeds from 1 to 1000, got '-1'"),
        (["--seeds", "abc"], "argument --seeds: expected a number of seeds from 1 to 1000, got 'abc'"),
        (["--only", "mnist_cn"], "--only: there is no experiment 'mnist_cn'; did you mean mnist_cnn?"),
        (["--only", "???"], "--only: there is no experiment '???'; see python -m experiments"),
        (["--output", "nowhere"], "--output: nowhere cannot be written to: No such file or directory"),
        (["--output", "file"], "--output: file cannot be written to: Not a directory"),
        (["--output", "taken"], "--output: taken/SCOREBOARD.md is no file"),
        (["--runs", "taken"], "--runs: taken is not empty, and no folder of a scoreboard"),
        (["--write"], "unknown option --write; did you mean --write-figures?"),
        (["--check"], "there is no scoreboard.json to check against: give --output"),
        (["--output", "damaged"], "damaged/scoreboard.json is damaged"),
    ],
)
def test_what_cannot_be_used_is_one_line(args, message, capsys):
    Path("file").touch()
    Path("taken/SCOREBOARD.md").mkdir(parents=True)
    Path("damaged").mkdir()
    Path("damaged/scoreboard.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        main(args)
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


def test_a_real_experiment_comes_on_the_board_and_all_it_imports_is_its_code(capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    main(["--only", "linear_regression_from_scratch", "--seeds", "1", "--output", "."])
    row = rows(Path())["linear_regression_from_scratch"]
    assert row.is_quotable
    assert row.parameters == 2
    assert {"test/mse", "weight_error", "bias_error", "seconds"} <= row.figures.keys()
    assert 0.2 < row.figures["test/mse"].mean < 0.3
    assert all(claim.reached for claim in row.claims)
    assert "written   SCOREBOARD.md, scoreboard.json" in capsys.readouterr().out
    assert "`linear_regression_from_scratch`" in Path("SCOREBOARD.md").read_text()
    main(["--only", "linear_regression_from_scratch", "--seeds", "1"])
    assert "1 of 1 runs are there\n" in capsys.readouterr().out
    imported = set(re.findall(r"\| +((?:zoo|datamodules|experiments)(?:\.\w+)*)$", log(), re.MULTILINE))
    code = circumstances._imported("experiments.linear_regression_from_scratch", circumstances.ROOT)
    names = {".".join(path.relative_to(circumstances.ROOT).with_suffix("").parts) for path in code}
    assert len(imported) > 50
    assert imported <= {name.removesuffix(".__init__") for name in names}
    assert "experiments.mnist_cnn" not in names


def log():
    return Path("runs/scoreboard/linear_regression_from_scratch/seed-0.log").read_text()
