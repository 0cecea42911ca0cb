"""The best networks: averaged weights on the command line, the vote, and the command that puts voters together."""

import json
from pathlib import Path

import pytest
import torch

from datamodules import MNISTDataModule
from experiments import combine, evaluate, mnist_best, mnist_ensemble
from experiments.fitting import fit_only
from zoo import EnsembleClassifier, VGGClassifier, load_pretrained
from zoo.callbacks import WEIGHT_AVERAGE_KEY
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint
from zoo.leaves import load_leaf
from zoo.pretrained import find_shipped

SHORT = [
    *("--data.dataset", "digits", "--data.batch_size", "64", "--trainer.precision", "32-true"),
    *("--trainer.max_epochs", "2", "--trainer.limit_train_batches", "15", "--trainer.log_every_n_steps", "5"),
]
SMALL = [*SHORT, "--model.channels", "[8, 16]", "--model.depths", "[1, 1]", "--average_decay", "0.9"]
VOTERS = [*SHORT, "--model.members", "[{class: SoftmaxClassifier}, {class: CNNClassifier}, {class: CNNClassifier}]"]


def images_of_test():
    data = MNISTDataModule(dataset="digits", seed=0)
    data.setup()
    return next(iter(data.test_dataloader()))


@pytest.fixture(scope="module")
def best(run_once):
    return run_once("mnist_best", *SMALL)


@pytest.fixture(scope="module")
def vote(run_once):
    return run_once("mnist_ensemble", *VOTERS)


def test_what_is_tested_and_kept_is_the_average(best, summary_of):
    last = best.directory / "checkpoints" / "last.ckpt"
    contents = read_checkpoint(last)
    kept = contents[WEIGHT_AVERAGE_KEY]
    assert (kept["kind"], kept["updates"]) == ("ema", 30)
    assert not torch.equal(
        kept["trained"]["network.classifier.weight"], contents["state_dict"]["network.classifier.weight"]
    )
    images, labels = images_of_test()
    with torch.no_grad():
        right = (VGGClassifier.load_from_checkpoint(last).eval()(images).argmax(dim=1) == labels).double().mean()
    assert best.metrics["test/accuracy"] == pytest.approx(float(right), abs=1e-6)
    assert summary_of(best.directory)["checkpoint"] == str(last)
    assert "claim     none: the data are digits, not MNIST" in best.out


def test_the_default_network_has_fewer_than_half_a_million_parameters():
    arguments = {name.removeprefix("model."): value for name, value in mnist_best.EXPERIMENT.defaults.items()}
    names = ("channels", "depths", "kernel_size")
    model = VGGClassifier(**{name: arguments[name] for name in names if name in arguments})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"{parameters:,} parameters" in mnist_best.__doc__
    assert parameters < 500_000


def test_a_trial_validates_the_average_as_a_run_does(best):
    validated = []
    fit_only(mnist_best.EXPERIMENT, SMALL, lambda number, metrics: validated.append(metrics["val/loss"]))
    rows = (best.directory / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/loss")
    logged = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert validated == logged
    assert len(logged) == 2


def test_in_a_trial_an_option_may_be_idle():
    assert "val/loss" in fit_only(mnist_best.EXPERIMENT, [*SMALL, "--average", "none"], lambda number, metrics: None)


def test_a_run_that_averages_goes_on_averaging(best, capsys):
    resume = ["--resume", str(best.directory / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "3"]
    for options, message in (
        (["--average", "none"], "with --average none the average would be trained on"),
        (["--average", "swa"], "averages its weights by 'ema', not 'swa'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            mnist_best.main([*resume, *options, "--run_dir", "other", "--tracking", "csv"])
        assert not Path("other/summary.json").exists()
    mnist_best.main([*resume, "--average_decay", "0.5", "--run_dir", "longer", "--tracking", "csv"])
    assert "average_decay 0.5 instead of 0.9" in capsys.readouterr().out
    assert read_checkpoint("longer/checkpoints/last.ckpt")[WEIGHT_AVERAGE_KEY]["updates"] == 45


def test_the_vote_and_its_members_are_reported(vote, summary_of):
    summary = summary_of(vote.directory)
    model = load_leaf(summary["checkpoint"]).eval()
    assert type(model) is EnsembleClassifier
    images, labels = images_of_test()
    with torch.no_grad():
        logits = [member(images) for member in model.network.members]
    decisions = torch.stack([one.argmax(dim=1) for one in logits])
    mean = torch.stack([one.softmax(dim=1) for one in logits]).mean(dim=0)
    majority = torch.where(decisions[1] == decisions[2], decisions[1], decisions[0])
    all_differ = (decisions[0] != decisions[1]) & (decisions[1] != decisions[2]) & (decisions[0] != decisions[2])
    majority = torch.where(all_differ, mean.argmax(dim=1), majority)
    expected = {
        "test/accuracy": mean.argmax(dim=1),
        **{f"test/member{number}_accuracy": decided for number, decided in enumerate(decisions, start=1)},
        "test/hard_vote_accuracy": majority,
    }
    for name, decided in expected.items():
        assert vote.metrics[name] == pytest.approx(float((decided == labels).double().mean()), abs=1e-6), name
    assert summary["examined"].keys() == expected.keys() - {"test/accuracy"}
    assert vote.metrics["test/member1_accuracy"] != vote.metrics["test/member2_accuracy"]


@pytest.fixture
def members(best, run_once):
    """Checkpoints of networks of two kinds, of two seeds."""
    other = run_once("mnist_cnn", *SHORT, "--seed_everything", "1")
    return [str(best.directory / "checkpoints" / "last.ckpt"), str(other.directory / "checkpoints" / "best.ckpt")]


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_checkpoints_are_combined_to_one_that_is_evaluated_like_any(members, voting, capsys):
    model = combine.combine(["--checkpoint", *members, "--output", "vote.ckpt", "--voting", voting])
    assert "written   vote.ckpt" in capsys.readouterr().out
    metrics = evaluate.evaluate(["--checkpoint", "vote.ckpt", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["data"]["dataset"]) == ("EnsembleClassifier", "digits")
    images, labels = images_of_test()
    with torch.no_grad():
        logits = [load_leaf(path).eval()(images) for path in members]
    mean = torch.stack([one.softmax(dim=1) for one in logits]).mean(dim=0)  # of two voters it decides either way
    assert metrics["test/accuracy"] == pytest.approx(float((mean.argmax(dim=1) == labels).double().mean()), abs=1e-6)
    assert model.hparams["voting"] == voting
    # The members' validation samples were the other's training samples.
    evaluate.evaluate(["--checkpoint", "vote.ckpt", "--split", "val"])
    assert "may be among those the model was trained on" in capsys.readouterr().err


def test_what_cannot_be_combined_is_one_line(members, run_once, tmp_path, capsys):
    xor = (
        run_once("xor", "--data.num_samples", "500", "--trainer.max_epochs", "1").directory
        / "checkpoints"
        / "last.ckpt"
    )
    contents = read_checkpoint(members[0])
    data = contents["MNISTDataModule"]
    changed = {
        "other statistics": {"MNISTDataModule": {**data, "mean": data["mean"] + 0.02 * data["std"]}},
        "other size": {"datamodule_hyper_parameters": {**contents["datamodule_hyper_parameters"], "image_size": 32}},
        "other set": {"MNISTDataModule": {**data, "dataset": "MNIST"}},
        "no data": {"MNISTDataModule": None},
        "no statistics": {"MNISTDataModule": {**data, "mean": None}},
    }
    for name, changes in changed.items():
        write_checkpoint({**contents, **changes}, tmp_path / name)
    Path("taken").write_text("")
    for options, parts in (
        ([members[0], str(tmp_path / "other statistics")], ["standardised otherwise"]),
        ([members[0], str(tmp_path / "other size")], ["another shape"]),
        ([members[0], str(tmp_path / "no statistics")], ["standardised otherwise"]),
        ([members[0], str(tmp_path / "other set")], ["other data", "MNIST", "digits"]),
        ([members[0], str(tmp_path / "no data")], ["other data", "does not say which"]),
        ([str(tmp_path / "no data")], ["does not say what data"]),
        ([str(xor)], ["a member's class", "BinaryMLPClassifier"]),
        ([*members, "--output", "taken"], ["taken", "--force"]),
        ([*members, "--output", "."], ["a directory"]),
        ([*members, "--output", "no/where.ckpt"], ["there is no directory no"]),
        ([*members, "--voting", "sotf"], ["voting", "sotf"]),
        ([*members, "--outputs", "x"], ["--outputs", "--output"]),
    ):
        with pytest.raises(SystemExit) as stopped:
            combine.combine(["--output", "vote.ckpt", "--checkpoint", *options])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert all(part in error for part in parts), error
    assert not Path("vote.ckpt").exists()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        combine.combine(["--output", "vote.ckpt", "--checkpoint", "none.ckpt"])
    combine.combine(["--output", "taken", "--force", "--checkpoint", *members])
    assert Path("taken").stat().st_size > 0


def test_shipped_weights_are_members_too(capsys):
    combine.combine(["--checkpoint", "mnist_cnn", "mnist_mlp", "--output", "vote.ckpt"])
    assert "member 2  MLPClassifier of mnist_mlp" in capsys.readouterr().out
    contents, entry = read_checkpoint("vote.ckpt"), find_shipped("mnist_cnn")
    told = contents["MNISTDataModule"]
    assert (told["dataset"], told["checksums"]["test"]) == ("MNIST", entry.checksums["test"])
    assert (told["mean"].flatten().tolist(), told["mean"].shape) == (pytest.approx(list(entry.mean)), (1, 1, 1))
    images = torch.randint(0, 256, (5, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()
    members = [load_pretrained(name).network(images).softmax(dim=1) for name in ("mnist_cnn", "mnist_mlp")]
    found = EnsembleClassifier.load_from_checkpoint("vote.ckpt").eval().network(images).softmax(dim=1)
    torch.testing.assert_close(found, (members[0] + members[1]) / 2)


def test_members_share_what_they_are_trained_with():
    theirs, ours = mnist_ensemble.EXPERIMENT.defaults, mnist_best.EXPERIMENT.defaults
    shared = theirs.keys() & ours.keys()
    assert {"model.optimizer", "model.scheduler", "data.augment", "average"} <= shared
    kernels = [member["kernel_size"] for member in theirs["model.members"]]
    assert kernels == [3, 3, 7]
