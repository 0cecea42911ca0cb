"""Several gloo processes against one: the same metrics, samples, weights and losses."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

_spec = importlib.util.spec_from_file_location("distributed_cases", Path(__file__).with_name("cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

WORLDS = (2, 3)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """What this process finds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PL_GLOBAL_SEED", "ZOO_RUN_DIR"):  # an experiment sets them for the processes it starts
            patch.setenv(name, "0")
            patch.delenv(name)
        return cases.run_all(1, tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("size", cases.SIZES)
@pytest.mark.parametrize("family", cases.FAMILIES)
@pytest.mark.parametrize("world", WORLDS)
def test_ranks_have_the_metrics_of_one_process(run_ranks, single, world, family, size):
    expected = single["evaluated"][family, size]
    assert {name.partition("/")[0] for name in expected} == {"val", "test"}
    for results in run_ranks(world):
        assert results["evaluated"][family, size] == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def test_one_process_has_the_metrics_of_a_computation_by_hand(single):
    task = cases.task_of("regression")
    features, targets = cases.samples_of("regression", 10_001)
    residuals = (targets - task(features)).detach().double()
    metrics = single["evaluated"]["regression", 10_001]
    variation = (targets.double() - targets.double().mean(dim=0)).square().sum(dim=0)
    assert metrics["test/mse"] == pytest.approx(residuals.square().mean().item(), rel=1e-6)
    assert metrics["test/r2"] == pytest.approx((1 - residuals.square().sum(dim=0) / variation).mean().item(), rel=1e-6)
    assert math.isnan(single["evaluated"]["regression", 1]["test/r2"])


def test_the_loss_of_weighted_classes_does_not_depend_on_the_batches(single):
    task = cases.task_of("weighted_multiclass")
    features, targets = cases.samples_of("weighted_multiclass", 10_001)
    whole = task.compute_loss(task(features), targets).item()
    assert single["evaluated"]["weighted_multiclass", 10_001]["test/loss"] == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("options", [(), ("drop_last",), ("group_by_length",)])
@pytest.mark.parametrize(
    ("size", "batch_size"),
    [(size, batch) for size in cases.SIZES for batch in cases.SHARDED_BATCHES if size < 10_000 or batch > 1],
)
@pytest.mark.parametrize("world", WORLDS)
def test_training_shards_cover_each_epoch_once(run_ranks, world, size, batch_size, options):
    shards = [results["sharded"][(size, batch_size, *options)] for results in run_ranks(world)]
    global_batch = batch_size * world
    if options == ("drop_last",) and size < global_batch:
        assert all(f"fewer than one batch of {global_batch}" in shard for shard in shards)
        return
    orders = []
    for epoch in range(2):
        steps = list(zip(*(shard[epoch] for shard in shards), strict=True))  # every rank takes every step
        own = [[sample for part, stands_in in step if not stands_in for sample in part] for step in steps]
        for step in steps:
            for part, stands_in in step:
                assert len(part) == 1 if stands_in else 1 <= len(part) <= batch_size
        seen = [sample for step in own for sample in step]
        left_out = size % global_batch if options == ("drop_last",) else 0
        assert len(seen) == len(set(seen)) == size - left_out
        assert set(seen) <= set(range(size))
        assert [len(step) for step in own[:-1]] == [global_batch] * (len(steps) - 1)
        orders.append(seen)
    assert size < 5 or orders[0] != orders[1]


@pytest.mark.parametrize("size", cases.TRAINING_SIZES)
@pytest.mark.parametrize("kind", cases.TRAININGS)
@pytest.mark.parametrize("world", WORLDS)
def test_ranks_have_the_weights_and_losses_of_one_process(run_ranks, single, world, kind, size):
    expected = single["trained"][kind, size]
    if expected is None:
        pytest.skip("fewer samples than a batch that may not be dropped")
    weights, losses, steps = expected
    assert set(losses) >= {"train/loss", "train/loss_epoch"}
    assert steps > 0
    for results in run_ranks(world):
        own, own_losses, own_steps = results["trained"][kind, size]
        assert own_steps == steps
        assert own_losses == pytest.approx(losses, rel=1e-6, abs=1e-6)
        for name, value in weights.items():
            torch.testing.assert_close(own[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_no_rank_has_weights_beyond_a_max_norm(run_ranks, world):
    for results in run_ranks(world):
        weights, _, _ = results["trained"]["max_norm", 1001]
        for name in ("network.hidden.0.weight", "network.hidden.4.weight"):
            assert torch.linalg.vector_norm(weights[name], dim=1).max().item() <= cases.MAX_NORM * (1 + 1e-6)


@pytest.mark.parametrize("size", [1, 129])
@pytest.mark.parametrize("world", WORLDS)
def test_validation_inside_a_fit_is_that_of_the_first_ranks_statistics(run_ranks, world, size):
    ranks = [results["batch_norm"][size] for results in run_ranks(world)]
    for logged, again in ranks:
        assert logged == pytest.approx(again, abs=1e-6)
        assert logged == ranks[0][0]


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_have_the_averaged_weights_of_one_process(run_ranks, single, world):
    expected = single["averaged"]
    assert not torch.equal(expected["network.weight"], expected["trained network.weight"])
    for results in run_ranks(world):
        for name, value in expected.items():
            torch.testing.assert_close(results["averaged"][name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_an_average_is_validated_with_the_first_ranks_statistics(run_ranks, world):
    found = [results["batch_norm_averaged"] for results in run_ranks(world)]
    for logged, again in found:
        assert logged == pytest.approx(again, abs=1e-6)
        assert logged == found[0][0]
    assert found[0][0] != run_ranks(world)[0]["batch_norm"][129][0]


@pytest.mark.parametrize("parts", cases.PARTS)
@pytest.mark.parametrize("world", WORLDS)
def test_losses_are_weighed_alike_whether_their_sum_is_known_or_asked_for(run_ranks, world, parts):
    ranks = [results["weighed"][parts] for results in run_ranks(world)]
    for _, known, asked in ranks:
        assert known == asked
    # DistributedDataParallel averages over the ranks.
    samples = parts[:world]
    mean = sum(loss * count for (loss, *_), count in zip(ranks, samples, strict=True)) / sum(samples)
    assert sum(known for _, known, _ in ranks) / world == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("world", WORLDS)
def test_the_statistics_of_norms_need_not_be_sent(run_ranks, single, world):
    ranks = [results["buffers"] for results in run_ranks(world)]
    assert [each["apart"]["sent"] for each in ranks] == [[False]] * world
    assert [each["sent"]["sent"] for each in ranks] == [[True]] * world
    first = ranks[0]
    assert set(first["sent"]["buffers"]) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert first["sent"]["buffers"]["1.num_batches_tracked"] > 0
    for kind in ("buffers", "weights"):
        for name, value in first["sent"][kind].items():
            assert torch.equal(first["apart"][kind][name], value)
    for each in ranks:
        assert each["apart"]["logged"] == each["sent"]["logged"] == first["sent"]["logged"]
        for name, value in first["sent"]["weights"].items():
            assert torch.equal(each["apart"]["weights"][name], value)
    # The statistics of the first rank's samples are not those of all, or there were nothing to be seen here.
    alone = single["buffers"]["apart"]["buffers"]["1.running_mean"]
    assert not torch.allclose(first["apart"]["buffers"]["1.running_mean"], alone)


@pytest.mark.parametrize("kind", ["polynomial", "polynomial with norm"])
@pytest.mark.parametrize("world", WORLDS)
def test_other_buffers_are_sent_as_ever(run_ranks, world, kind):
    ranks = [results["buffers"][kind] for results in run_ranks(world)]
    assert [each["sent"] for each in ranks] == [[True]] * world
    for name, value in ranks[0]["buffers"].items():
        assert all(torch.equal(each["buffers"][name], value) for each in ranks)  # shared for the last validation


@pytest.mark.parametrize("step", cases.STOPS)
@pytest.mark.parametrize("world", [1, *WORLDS])
def test_ranks_stop_behind_the_same_batch_and_go_on_as_if_they_had_not(run_ranks, single, world, step):
    for rank, results in enumerate([single] if world == 1 else run_ranks(world)):
        (whole_code, whole_steps, whole_weights), stops = results["stopped"]
        assert (whole_code, whole_steps) == (None, 14)
        code, steps, can_go_on, (end_code, end_steps, end_weights) = stops[step]
        assert code == (143 if rank == 0 else 0)  # only the first one's code is the run's
        # Asked before each batch, and at an epoch's end, the others hear in the next one of what was told in this.
        assert steps == min(14, step + 1 + (world > 1 and step % 7 != 6))
        assert can_go_on
        assert (end_code, end_steps) == (None, 14)
        # Of three summands the order matters, and DistributedDataParallel has another in its first step than later.
        tolerance = 0.0 if world < 3 else 1e-6
        for name, value in whole_weights.items():
            torch.testing.assert_close(end_weights[name], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_that_ask_each_other_seldom_stop_together_at_the_end_of_the_epoch(run_ranks, world):
    for rank, results in enumerate(run_ranks(world)):
        (_, _, whole_weights), (code, steps, (end_code, end_steps, end_weights)) = results["stopped_seldom"]
        assert code == (143 if rank == 0 else 0)
        # Before the first batch nobody knows how long one takes, so all ask again before the second.
        assert steps == 7
        assert (end_code, end_steps) == (None, 14)
        for name, value in whole_weights.items():
            torch.testing.assert_close(end_weights[name], value, rtol=0, atol=0.0 if world < 3 else 1e-6)


@pytest.mark.parametrize("world", [1, *WORLDS])
def test_the_lean_loop_does_what_lightnings_does(run_ranks, single, world):
    for results in [single] if world == 1 else run_ranks(world):
        plain, lean = (results["lean"][is_lean] for is_lean in (False, True))
        assert (plain["lean"], lean["lean"]) == ({False}, {True})
        assert len(plain["calls"]) == 14 * 5 + 4  # steps, and validations
        assert lean["calls"] == plain["calls"]
        assert lean["logged"] == plain["logged"]
        assert lean["state"].keys() == plain["state"].keys()
        for name, value in plain["state"].items():
            assert torch.equal(lean["state"][name], value), name


@pytest.mark.parametrize("world", WORLDS)
def test_an_experiment_has_the_metrics_of_one_process_and_so_has_a_resumed_one(run_ranks, single, world):
    metrics, weights = single["experimented"][0]
    for results in [single, *run_ranks(world)]:
        (own, own_weights), (resumed, resumed_weights) = results["experimented"]
        assert resumed == own == pytest.approx(metrics, abs=1e-5)
        for name, value in weights.items():
            torch.testing.assert_close(own_weights[name], value, rtol=0, atol=1e-5)
            assert torch.equal(resumed_weights[name], own_weights[name])


@pytest.mark.parametrize("world", WORLDS)
def test_the_trainer_leaves_loaders_alone(run_ranks, world):
    ranks = [results["untouched"] for results in run_ranks(world)]
    assert sorted(sample for seen, _ in ranks for sample in seen) == list(range(7))
    assert all(same for _, same in ranks)


@pytest.mark.parametrize("world", WORLDS)
def test_the_first_rank_looks_at_the_gradients_of_all(run_ranks, single, world):
    norms, samples, findings, notes, weights = single["watched"]
    assert len(norms) > 8
    assert notes == ["whether one batch can be overfitted: 16 parameters cannot learn 60 targets by heart"]
    first, *others = [results["watched"] for results in run_ranks(world)]
    assert first[0] == pytest.approx(norms, rel=1e-4)
    assert sum(first[1]) == pytest.approx(sum(samples) / world, abs=len(samples))
    assert first[2] == findings == []
    assert first[3] == ["whether one batch can be overfitted, which takes a single process"]
    for results in (first, *others):
        torch.testing.assert_close(results[4], weights)
    assert all(results[0] == [] for results in others)


@pytest.mark.parametrize("world", WORLDS)
def test_the_first_rank_draws_what_one_process_would(run_ranks, single, world):
    first, *others = [results["figures"] for results in run_ranks(world)]
    for size, expected in single["figures"].items():
        for own, theirs in zip(first[size], expected, strict=True):
            torch.testing.assert_close(own, theirs)
        assert all(figures[size] is None for figures in others)
    assert 0 < len(first[129][2]) <= 32


@pytest.mark.parametrize("world", WORLDS)
def test_a_figure_that_fails_in_one_rank_costs_all_of_them_a_warning(run_ranks, single, world):
    loss, _ = single["broken_figure"]
    *others, last = [results["broken_figure"] for results in run_ranks(world)]
    assert last == (pytest.approx(loss), ["BrokenOnOne failed (RuntimeError: spoilt)"])
    for figures in others:
        assert figures == (
            pytest.approx(loss),
            ["BrokenOnOne failed (RuntimeError: another process could not follow the test)"],
        )
