"""The rows, the page and the intervals, on made-up summaries."""

import dataclasses
import json
import math

import pytest

from experiments.over_seeds import MeanClaim, RunsError, Spread, read_summary
from experiments.scoreboard import words
from experiments.scoreboard.about import About, about
from experiments.scoreboard.board import Board, BoardError, read_board
from experiments.scoreboard.interval import Interval, interval, place_of
from experiments.scoreboard.page import page
from experiments.scoreboard.row import Finished, row_of

LENET = About("mnist_lenet", "LeNet-5 reads MNIST", "LeNet-5", "test/accuracy", datasets=frozenset({"MNIST"}))
BLOBS = About("multiclass_blobs", "Five classes", "MLP | `wide`", "test/accuracy")
PUBLISHED = "published for LeNet-5 without distortions, LeCun et al. 1998"
CIRCUMSTANCES = {
    "machine": {"cpu": "Some Processor", "cores": 2, "memory_gib": 8.0, "gpu": None},
    "commit": "0123456789abcdef",
    "clean": True,
    "versions": {"python": "3.11.7", "torch": "2.15.0+cpu", "lightning": "2.6.6"},
    "code": "c0de",
    "date": "2026-01-31T12:00:00+00:00",
}


def claim_of(value, bar=0.9905, limit=0.9905, source=PUBLISHED, mode="max", metric="test/accuracy"):
    reached = value >= bar if mode == "max" else value <= bar
    distance = None if limit is None else (limit - value if mode == "max" else value - limit)
    held = {"metric": metric, "value": value, "bar": bar, "limit": limit, "source": source, "mode": mode}
    return {**held, "reached": reached, "distance_to_limit": distance}


def summary(value, *claims, seconds=60.0, dataset="MNIST", **more):
    return {
        "experiment": "mnist_lenet",
        "dataset": dataset,
        "test/accuracy": value,
        "test/loss": 0.03,
        "examined": {},
        "claims": list(claims),
        "seconds": {"total": seconds},
        "parameters": 61706,
        "device": "Some(R) Processor, 2 threads",
        "precision": "bf16-mixed",
        **more,
    }


def runs_of(*summaries):
    return {seed: Finished(one, CIRCUMSTANCES) for seed, one in enumerate(summaries)}


def lenet(*values, wanted=None, failed=None, one=LENET, **more):
    runs = runs_of(*(summary(value, claim_of(value), seconds=60.0 + seed) for seed, value in enumerate(values)))
    return row_of(dataclasses.replace(one, **more), len(values) if wanted is None else wanted, runs, failed or {})


def blobs(*pairs, source="the best possible"):
    """Of the accuracy and the best possible with each seed's data."""
    made = [
        summary(value, claim_of(value, limit - 0.01, limit, source), dataset="blobs", experiment="multiclass_blobs")
        for value, limit in pairs
    ]
    return row_of(BLOBS, len(pairs), runs_of(*made), {})


# ---------------------------------------------------------------------- rows


def test_a_row_holds_mean_and_deviation_of_the_seeds():
    row = lenet(0.991, 0.992, 0.993)
    assert row.is_quotable
    assert row.figures["test/accuracy"].mean == pytest.approx(0.992)
    assert row.figures["test/accuracy"].std == pytest.approx(0.001)
    assert row.seconds.mean == 61.0
    assert (row.seeds, row.parameters, row.dataset, row.remarks) == ((0, 1, 2), 61706, "MNIST", [])
    [claim] = row.claims
    assert (claim.reached, claim.runs_reaching) == (True, 3)
    assert claim.distance.mean == pytest.approx(-0.0015)


def test_a_row_of_fewer_seeds_says_so():
    row = lenet(0.991, 0.992, wanted=5)
    assert not row.is_complete
    assert row.remarks == ["incomplete: 2 of 5 seeds"]


def test_a_row_with_failed_seeds_says_so_and_why():
    row = lenet(0.991, 0.992, wanted=5, failed={3: "no space left", 4: "no space left"})
    assert row.remarks == ["2 of 5 seeds failed: no space left", "incomplete: 2 of 5 seeds"]
    assert row.is_complete is False
    nothing = lenet(wanted=2, failed={0: "a", 1: "b"})
    assert nothing.remarks == ["2 of 2 seeds failed: a; b"]
    assert nothing.figures == {}


def test_runs_on_stand_in_data_are_no_figure_of_the_experiment():
    made = [summary(0.97, dataset="digits") for _ in range(2)]
    row = row_of(LENET, 2, runs_of(*made), {})
    assert row.is_complete
    assert not row.is_quotable
    assert row.remarks == ["on digits, a stand-in: no figure of this experiment"]


def test_a_seed_on_stand_in_data_is_no_part_of_the_mean_of_the_others():
    runs = runs_of(summary(0.99, claim_of(0.99)), summary(0.5, dataset="digits"), summary(0.992, claim_of(0.992)))
    row = row_of(LENET, 3, runs, {})
    assert row.seeds == (0, 2)
    assert row.figures["test/accuracy"].mean == pytest.approx(0.991)
    assert row.failed == {1: "it ran on digits, other seeds on MNIST"}


def test_a_figure_that_is_no_number_is_in_no_mean():
    runs = runs_of(summary(0.99, claim_of(0.99)), {**summary(None), "claims": [{**claim_of(0.9), "value": None}]})
    row = row_of(LENET, 2, runs, {})
    assert row.seeds == (0,)
    assert "no number" in row.failed[1]


def test_a_figure_that_some_seeds_lack_is_left_out():
    runs = runs_of(summary(0.99, claim_of(0.99)), summary(0.99, claim_of(0.99), **{"test/loss": None}))
    assert set(row_of(LENET, 2, runs, {}).figures) == {"test/accuracy", "seconds"}


@pytest.mark.parametrize(
    "contents",
    ["", "{", "[]", "null", "[" * 100_000, json.dumps(summary("high")), json.dumps(summary(0.9, {"metric": "x"}))],
)
def test_what_is_no_summary_is_named(contents, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(contents)
    with pytest.raises(RunsError, match=r"summary\.json (is no summary of a run|cannot be read: )"):
        read_summary(path)


# ---------------------------------------------------------------------- the board on the disk


def board_of(*rows):
    return Board({row.experiment: row for row in rows})


def test_a_board_that_is_read_back_is_the_same(tmp_path):
    board = board_of(lenet(0.991, 0.992, wanted=3, failed={2: "it said nothing"}), blobs((0.87, 0.88), (0.91, 0.92)))
    path = tmp_path / "scoreboard.json"
    board.write(path)
    assert read_board(path).as_text() == board.as_text() == path.read_text()
    held = json.loads(path.read_text())["rows"]["mnist_lenet"]
    assert held["figures"]["test/accuracy"]["mean"] == pytest.approx(0.9915)
    assert held["claims"][0]["ahead_by"] == pytest.approx(0.001)
    assert (held["complete"], held["failed"]) == (False, {"2": "it said nothing"})


def test_no_board_is_an_empty_one(tmp_path):
    assert read_board(tmp_path / "scoreboard.json").rows == {}


def _without(key):
    def damage(row):
        del row[key]

    return damage


def _set(*path):
    *places, last, value = path

    def damage(row):
        for place in places:
            row = row[place]
        row[last] = value

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(_without(key) for key in ("figures", "claims", "versions", "seeds")),
        _set("seeds", "0 to 4"),
        _set("seeds", [0]),
        _set("wanted", True),
        _set("failed", []),
        _set("date", 3),
        _set("figures", "test/accuracy", {"values": [1, "0.9"]}),
        _set("figures", "test/accuracy", "values", [10**400, 1]),
        _set("figures", {}),
        _set("claims", 0, "metric", "test/unknown"),
        _set("claims", 0, "bar", None),
        _set("claims", [None]),
        _set("seeds", [1, 1]),
    ],
)
def test_a_damaged_board_is_refused_with_the_row_that_is_damaged(damage, tmp_path):
    path = tmp_path / "scoreboard.json"
    board_of(lenet(0.991, 0.992)).write(path)
    held = json.loads(path.read_text())
    damage(held["rows"]["mnist_lenet"])
    path.write_text(json.dumps(held))
    before = path.read_bytes()
    with pytest.raises(BoardError, match=r"is damaged \(the row of mnist_lenet: .*\): restore it .* or move it away"):
        read_board(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "contents",
    [
        *("", "{", "[]", "[" * 100_000, b"\xff\xfe"),
        *('{"format": 2, "rows": {}}', '{"format": 1, "rows": [NaN]}', '{"format": 1, "rows": {"\\ud800": 1}}'),
    ],
)
def test_what_is_no_board_is_refused(contents, tmp_path):
    path = tmp_path / "scoreboard.json"
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(BoardError, match="is damaged"):
        read_board(path)


def test_figures_without_a_seed_are_refused(tmp_path):
    path = tmp_path / "scoreboard.json"
    board_of(lenet(0.991, 0.992)).write(path)
    held = json.loads(path.read_text())
    row = held["rows"]["mnist_lenet"]
    row.update(seeds=[], claims=[], figures={name: {"values": []} for name in row["figures"]})
    path.write_text(json.dumps(held))
    with pytest.raises(BoardError, match="figures, and no seed that they are of"):
        read_board(path)


def test_a_folder_is_no_board(tmp_path):
    with pytest.raises(BoardError, match="cannot be read"):
        read_board(tmp_path)


# ---------------------------------------------------------------------- intervals


def claim_over(values, limits=None, mode="max", metric="test/mse"):
    limit = None if limits is None else Spread(tuple(limits))
    return MeanClaim(metric, mode, Spread(tuple(values)), 0.0, limit, "", len(values))


def test_the_interval_is_that_of_students_t_for_one_more_seed():
    values = [0.99, 0.97, 0.93, 0.95, 0.91]  # mean 0.95, deviation sqrt(0.001)
    half = 8.611 * math.sqrt(0.001) * math.sqrt(1.2)
    bounds = interval(claim_over(values))
    assert bounds.of == "value"
    assert (bounds.low, bounds.high) == pytest.approx((0.95 - half, 0.95 + half))


def test_the_quantiles_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    from experiments.scoreboard.interval import _T

    for freedom, t in _T.items():
        assert t == pytest.approx(stats.t.ppf(0.9995, freedom), rel=1e-3)


def test_between_the_quantiles_that_of_fewer_seeds_is_taken():
    values = [0.9, 1.0] * 6  # 11 degrees of freedom, for which that of 9 stands
    spread = Spread(tuple(values))
    half = 4.781 * spread.std * math.sqrt(1 + 1 / 12)
    assert interval(claim_over(values)).high == pytest.approx(spread.mean + half)


def test_seeds_that_all_agree_leave_room_for_another_rounding():
    bounds = interval(claim_over([0.5] * 20))
    assert (bounds.low, bounds.high) == pytest.approx((0.495, 0.505))


def test_an_interval_holds_what_can_be():
    bounds = interval(claim_over([1.0] * 5, metric="test/accuracy"))
    assert (bounds.low, bounds.high) == (0.99, 1.0)
    bounds = interval(claim_over([1e-4, 0.0, 3e-4]))
    assert bounds.low == 0.0
    assert bounds.high > 1e-3
    assert interval(claim_over([-1.0, 0.0, 1.0])).low < -1.0


def test_where_the_limit_follows_the_data_the_distance_counts():
    bounds = interval(claim_over([0.87, 0.91, 0.80], [0.88, 0.925, 0.805]))
    spread = Spread((0.01, 0.015, 0.005))
    assert bounds.of == "distance"
    assert bounds.high == pytest.approx(0.01 + 31.60 * spread.std * math.sqrt(4 / 3))
    held = {"value": 0.5, "distance_to_limit": 0.02}
    assert place_of(held, bounds) == 0.02
    assert place_of(held, Interval("value", 0.0, 1.0)) == 0.5
    assert place_of({"value": None}, Interval("value", 0.0, 1.0)) is None


def test_a_limit_that_is_the_same_for_all_leaves_the_figure():
    assert interval(claim_over([0.87, 0.91, 0.80], [0.95] * 3)).of == "value"


@pytest.mark.parametrize("seeds", [1, 2])
def test_of_two_seeds_nothing_can_be_said(seeds):
    assert interval(claim_over([0.9] * seeds)) is None


# ---------------------------------------------------------------------- the page


def cells_of(text, experiment):
    text = text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NON-BREAKING HYPHEN}", "-")
    [line] = [line for line in text.splitlines() if f"`{experiment}`" in line]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_published_figures_are_errors_in_percent_and_ours_beside_them():
    text = page(board_of(lenet(0.991, 0.992, 0.993)))
    assert cells_of(text, "mnist_lenet") == [
        "LeNet-5<br>`mnist_lenet`",
        "61,706",
        "0.95 %",
        "LeNet-5 without distortions (LeCun et al. 1998)",
        "0.80 % ± 0.10",
        "0.15",
        "≤ 0.95 % ✓",
        "61.0 ± 1.0",
        "3",
        "2026-01-31<br>`0123456`",
    ]


def test_what_is_behind_and_what_misses_its_bar_stands_out():
    cells = cells_of(page(board_of(lenet(0.99, 0.99))), "mnist_lenet")
    assert cells[5:7] == ["**behind by 0.05**", "**≤ 0.95 % ✗**"]
    assert cells_of(page(board_of(lenet(0.9905, 0.9905))), "mnist_lenet")[5] == "level"


def test_two_published_figures_are_two_lines_and_ours_is_said_once():
    norm = "published for dropout and max-norm, Srivastava et al. 2014"
    made = summary(0.9884, claim_of(0.9884, 0.988, 0.9875), claim_of(0.9884, 0.988, 0.9894, norm))
    cells = cells_of(page(board_of(row_of(LENET, 2, runs_of(made, made), {}))), "mnist_lenet")
    assert cells[2] == "1.25 %<br>1.06 %"
    assert cells[3] == (
        "LeNet-5 without distortions (LeCun et al. 1998)<br>dropout and max-norm (Srivastava et al. 2014)"
    )
    assert cells[4:7] == ["1.16 % ± 0.00<br>", "0.09<br>**behind by 0.10**", "≤ 1.2 % ✓<br>"]


def test_the_order_of_published_figures_is_that_of_their_errors():
    named = {"a": 0.9957, "b": 0.88, "c": 0.9905, "d": 0.9965}
    rows = []
    for name, limit in named.items():
        made = summary(0.99, claim_of(0.99, limit, limit))
        rows.append(row_of(About(name, name, name, "test/accuracy"), 2, runs_of(made, made), {}))
    text = page(board_of(*rows))
    assert sorted(named, key=lambda name: text.index(f"`{name}`")) == ["b", "c", "a", "d"]


def test_known_limits_have_a_table_of_their_own():
    text = page(board_of(lenet(0.992), blobs((0.87, 0.88), (0.91, 0.925))))
    assert text.index("## Held against published") < text.index("## Held against known limits")
    cells = cells_of(text, "multiclass_blobs")
    assert cells[2:8] == [
        "test accuracy",
        "89.00 % ± 2.83",
        "90.25 %",
        "the best possible",
        "1.25 ± 0.35",
        "**≥ 89.25 % ✗**",
    ]
    assert "## Without" not in text


def test_without_a_limit_a_row_stands_in_the_last_table():
    made = summary(0.99, claim_of(0.99, 0.989, None, ""))
    cells = cells_of(page(board_of(row_of(LENET, 1, runs_of(made), {}))), "mnist_lenet")
    assert cells[2:5] == ["test accuracy", "99.00 %", "≥ 98.90 % ✓"]


def test_incomplete_rows_and_stand_ins_are_marked():
    text = page(board_of(lenet(0.991, 0.992, wanted=5)))
    assert "**incomplete: 2 of 5 seeds**<br>0.95\N{NO-BREAK SPACE}%" in text
    stand_in = row_of(LENET, 2, runs_of(*[summary(0.97, dataset="digits")] * 2), {})
    text = page(board_of(stand_in))
    assert "## Held" not in text
    assert "**on digits, a stand-in: no figure of this experiment**<br>test\N{NO-BREAK SPACE}accuracy" in text
    text = page(board_of(lenet(wanted=1, failed={0: "a | b <c> *d*"})))
    assert "**1 of 1 seeds failed: a \\| b &lt;c&gt; \\*d\\***" in text


def test_every_row_has_as_many_cells_as_its_table():
    text = page(board_of(lenet(0.99), blobs((0.9, 0.92)), lenet(wanted=1, failed={0: "x|y"}, name="mnist_mlp")))
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) == 3
    for table in tables:
        counts = {line.replace("\\|", "").count("|") for line in table if line}
        assert len(counts) == 1


def test_the_machine_is_named_and_rows_of_another_refer_to_theirs():
    one, other = lenet(0.99), blobs((0.9, 0.92))
    text = page(board_of(one, other))
    assert "**Machine:** Some Processor, 2 cores, 8.0 GiB of memory, no GPU" in text
    there = dataclasses.replace(
        other, circumstances={**other.circumstances, "clean": False, "commit": None, "versions": {}}
    )
    text = page(board_of(one, there))
    assert "**Machine (1):**" in text
    assert "**Machine (2):**" in text
    assert cells_of(text, "multiclass_blobs")[-1] == "2026-01-31<br>no revision changed (2)"


def test_a_text_of_the_board_cannot_break_the_page():
    hostile = blobs((0.9, 0.92), source="<script>alert(1)</script> | [x](javascript:x)\n## no")
    text = page(board_of(hostile))
    assert "<script>" not in text
    assert "\\[x\\](javascript:x) ## no" in text
    assert "MLP \\| \\`wide\\`" in text


def test_a_board_without_rows_is_a_page_without_tables():
    assert page(Board()).startswith("# Scoreboard\n")
    assert "| ---" not in page(Board())


# ---------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("metric", "values", "text"),
    [
        ("test/accuracy", (0.99224, 0.99225), "99.22 % ± 0.00"),
        ("test/mse", (4.2, 4.38), "4.29 ± 0.13"),
        ("test/mse", (1200.0, 1000.0), "1100 ± 141"),
        ("seconds", (7.44, 7.46), "7.5 s ± 0.0"),
        ("weight_error", (0.0, 0.0), "0.0000 ± 0"),
        ("prediction_error", (0.00095, 0.00097), "9.6e-4 ± 1.4e-5"),
        ("test/accuracy", (1.0,), "100.00 %"),
    ],
)
def test_figures_are_rounded_by_what_they_are(metric, values, text):
    assert words.mean_and_std(metric, Spread(values)) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1e-4, "1e-4"), (0.00951, "1e-2"), (3e-7, "3e-7"), (0.0, "0"), (4.2, "5e0")]
)
def test_a_bound_is_rounded_up(number, text):
    assert words.at_most(number) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.12, "12.0 %"), (0.016, "1.6 %"), (0.0106, "1.06 %"), (0.0013, "0.13 %")]
)
def test_published_errors_have_the_digits_they_were_published_with(share, text):
    assert words.percent(share) == text
    assert words.percent(1.0 - (1.0 - share)) == text


# ---------------------------------------------------------------------- what experiments say of themselves


def test_an_experiment_is_asked_for_its_figure_and_its_data():
    lenet_5 = about("mnist_lenet", "LeNet-5 reads MNIST without distortions: 99.22 %, in 67 s.")
    assert (lenet_5.metric, lenet_5.mode, lenet_5.datasets) == ("test/accuracy", "max", {"MNIST"})
    assert lenet_5.what == "LeNet-5 reads MNIST without distortions"
    assert lenet_5.headline == ("test/accuracy", "seconds")
    assert not lenet_5.quick
    xor = about("xor", "Exclusive or: ...")
    assert (xor.seeds, xor.quick, xor.datasets) == (20, True, frozenset())
    assert about("sine_forecast", "").quick is False


@pytest.mark.parametrize("name", ["seeds", "no_such_module"])
def test_a_module_without_an_experiment_is_known_by_its_docstring(name):
    assert about(name, "Several seeds: 1.00 %, in 3 s.") == About(
        name, "Several seeds", "Several seeds", "test/accuracy", headline=("test/accuracy", "seconds")
    )
