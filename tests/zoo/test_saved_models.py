"""Models in directories, in the layout of the Hub."""

import json
import os
import re

import pytest
import torch
import yaml
from torch import nn

import zoo
from datamodules import TensorDataModule
from zoo import (
    BinaryMLPClassifier,
    CNNClassifier,
    CRNNTranscriber,
    EnsembleClassifier,
    LinearRegressor,
    LSTMForecaster,
    MLPClassifier,
    MulticlassClassification,
    VGGClassifier,
    load_pretrained,
    save_pretrained,
)
from zoo.checkpointing import CheckpointError, load_weights
from zoo.leaves import LEAVES, UnknownTaskError
from zoo.networks import MLP
from zoo.pretrained import PretrainedError
from zoo.pretrained.card import model_card
from zoo.pretrained.directory import FILES, describe


class Sorter(MulticlassClassification):
    """Somebody's own model, made from plain arguments."""

    def __init__(self, width: int = 3, num_classes: int = 2, optimizer=None) -> None:
        super().__init__(network=MLP(4, (width,), num_classes), num_classes=num_classes, optimizer=optimizer)


class Given(MulticlassClassification):
    """Somebody's own model, whose network is given to it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network=network, num_classes=2)


def same(one, other):
    return one.state_dict().keys() == other.state_dict().keys() and all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


@pytest.fixture
def saved(tmp_path):
    """A small classifier in a directory."""
    return save_pretrained(MLPClassifier(in_features=4, hidden=(3,), num_classes=3), tmp_path / "model")


def rewrite(folder, **changes):
    """Changes the configuration; ``None`` leaves a key out."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: each for key, each in config.items() if each is not None}))


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_every_leaf_is_saved_and_comes_back(leaf, tmp_path):
    task = leaf()
    folder = save_pretrained(task, tmp_path / "sub" / "model")
    assert {path.name for path in folder.iterdir()} == set(FILES)
    again = load_pretrained(folder)
    assert type(again) is leaf
    assert not again.training
    assert same(task, again)
    assert dict(again.hparams) == dict(task.hparams)
    assert load_pretrained(str(folder), leaf).hparams == task.hparams


def test_the_same_model_gives_the_same_bytes_and_others_read_them(tmp_path):
    task = CNNClassifier(channels=(2, 3))
    one, other = (save_pretrained(task, tmp_path / name) for name in ("one", "other"))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    network = CNNClassifier(channels=(2, 3)).network
    assert same(load_weights(network, one / "model.safetensors"), task.network)


def test_temperature_data_and_metrics_are_kept(tmp_path):
    data = TensorDataModule(torch.randn(60, 4), torch.arange(60) % 3, standardize=True, batch_size=8, seed=1)
    data.setup()
    task = MLPClassifier(in_features=4, hidden=(3,), num_classes=3)
    task.temperature = 0.7
    folder = save_pretrained(task, tmp_path, datamodule=data, metrics={"test/accuracy": 0.5, "test/loss": 1.0})
    assert load_pretrained(folder).temperature == 0.7
    config = json.loads((folder / "config.json").read_text())
    assert (config["data"], config["data_class"]) == ("tensors", "TensorDataModule")
    assert config["mean"] == pytest.approx(data.mean.tolist())
    assert config["checksums"] == data.checksums
    assert config["metrics"] == {"test/accuracy": 0.5, "test/loss": 1.0}
    assert config["arguments"]["hidden"] == [3]
    assert config["versions"]["torch"] == torch.__version__


def test_a_model_of_ones_own_comes_back_with_its_class(tmp_path):
    task = Sorter(width=5)
    folder = save_pretrained(task, tmp_path)
    assert same(load_pretrained(folder, cls=Sorter), task)
    with pytest.raises(UnknownTaskError, match=r"none of the zoo's ready models: if you have its code.*cls=Sorter"):
        load_pretrained(folder)
    with pytest.raises(PretrainedError, match="is a Sorter, not an MLPClassifier"):
        load_pretrained(folder, cls=MLPClassifier)
    rewrite(folder, module="os", class_name="system")
    with pytest.raises(UnknownTaskError, match=r"is an os\.system, which is none"):
        load_pretrained(folder)


class Masked(MulticlassClassification):
    """Somebody's own model with buffers of small types."""

    def __init__(self, width: int = 3) -> None:
        super().__init__(network=MLP(4, (width,), 2), num_classes=2)
        self.register_buffer("mask", torch.ones(2, 3, dtype=torch.int8))
        self.register_buffer("weights16", torch.ones(3, dtype=torch.float16))


def test_buffers_of_any_type_come_back(tmp_path):
    task = Masked()
    task.mask[1, 2] = -7
    again = load_pretrained(save_pretrained(task, tmp_path / "model"), cls=Masked)
    assert same(again, task)
    assert (again.mask.dtype, again.weights16.dtype) == (torch.int8, torch.float16)


@pytest.mark.parametrize(
    "task",
    [
        MulticlassClassification(network=nn.Linear(2, 3), num_classes=3),
        Given(nn.Linear(4, 2)),
        zoo.Regression(network=nn.Linear(2, 3)),
    ],
    ids=lambda task: type(task).__name__,
)
def test_what_could_not_be_made_again_is_not_saved(task, tmp_path):
    with pytest.raises(PretrainedError, match="cannot be made again from plain arguments, as its network is none"):
        save_pretrained(task, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    task = LinearRegressor()
    with torch.no_grad():
        task.network.linear.bias.fill_(torch.nan)
    with pytest.raises(PretrainedError, match=r"NaN or infinity in network\.linear\.bias is not saved"):
        save_pretrained(task, tmp_path / "model")
    with pytest.raises(PretrainedError, match="metrics must be finite numbers by name"):
        save_pretrained(LinearRegressor(), tmp_path / "model", metrics={"test/mse": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"task": nn.Linear(2, 2)}, TypeError, "only a zoo.Task can be saved, got a Linear"),
        ({"datamodule": "MNIST"}, TypeError, "datamodule must be a LightningDataModule, got a str"),
        ({"metrics": {"test/mse": "good"}}, PretrainedError, "metrics must be finite numbers by name, got"),
        ({"metrics": [1]}, PretrainedError, "metrics must be finite numbers by name, got"),
        ({"metrics": {"a\nb": 1.0}}, PretrainedError, "metrics must be finite numbers by name, got"),
        ({"tags": "abc"}, PretrainedError, "tags must be a list of lines of text, got 'abc'"),
    ],
)
def test_what_cannot_be_written_down_is_refused(given, error, told, tmp_path):
    with pytest.raises(error, match=told):
        save_pretrained(**{"task": LinearRegressor(), "directory": tmp_path / "model", **given})
    assert not list(tmp_path.iterdir())


def test_names_of_directories_may_be_anything(tmp_path):
    folder = save_pretrained(LinearRegressor(), tmp_path / "\u6a21\u578b \u2013 a\nb")
    assert load_pretrained(folder).hparams["in_features"] == 1
    assert "# LinearRegressor\n" in (folder / "README.md").read_text()


def test_another_model_is_only_replaced_if_that_is_said(saved):
    other = MLPClassifier(in_features=4, hidden=(7,), num_classes=3)
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(PretrainedError, match=r"holds a config\.json already: give another directory, or overwrite"):
        save_pretrained(other, saved)
    assert load_pretrained(saved).hparams["hidden"] == (3,)
    save_pretrained(other, saved, overwrite=True)
    assert load_pretrained(saved).hparams["hidden"] == (7,)
    assert (saved / "notes.txt").read_text() == "mine"


def test_places_that_cannot_be_written_to_are_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PretrainedError, match="is a file, and a model is saved as a directory"):
        save_pretrained(LinearRegressor(), tmp_path / "file")
    with pytest.raises(CheckpointError, match="could not be written"):
        save_pretrained(LinearRegressor(), tmp_path / "file" / "model")
    with pytest.raises(CheckpointError, match="is a URL"):
        save_pretrained(LinearRegressor(), "hf://owner/model")


# ---------------------------------------------------------------------- what is damaged, or made to be in the way


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arguments": {"in_features": 4, "hidden": [4], "num_classes": 3}}, "not those of its hyperparameters"),
        ({"arguments": {"in_features": 10**9, "hidden": [10**6] * 5}}, "many times the size of its weights"),
        ({"arguments": {"hidden": {"a": 1}}}, "no MLPClassifier can be made"),
        ({"arguments": {"weights": "/dev/zero"}}, "it has a weights"),
        ({"arguments": {"network": "os.system"}}, "it has a network"),
        ({"arguments": [1]}, "arguments must be plain values"),
        ({"arguments": {"num_classes": "3"}}, "out_features must be an integer"),
        ({"class_name": "os.system"}, "class_name must be the name of a class"),
        ({"class_name": "Task"}, "is a Task, which this version of the zoo does not have"),
        ({"temperature": -1.0}, "temperature must be a positive number"),
        ({"temperature": "1"}, "temperature must be a positive number"),
        ({"sha256": "0" * 64}, "is not the file that was saved"),
        ({"sha256": None}, "it must have exactly the keys"),
        ({"file": "../../etc/passwd"}, "it must have exactly the keys"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "it must have exactly the keys"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(saved, changes, told):
    rewrite(saved, **changes)
    with pytest.raises(CheckpointError, match=told) as refused:
        load_pretrained(saved)
    assert str(saved) in str(refused.value)
    assert len(str(refused.value)) < 1200


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is not JSON"),
        (b"[]", "it must have exactly the keys"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": NaN}', "no number"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (2**20 + 1), "larger than 1,048,576 bytes"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_configuration_that_is_none_is_refused_by_name(saved, data, told):
    (saved / "config.json").write_bytes(data)
    with pytest.raises(PretrainedError, match=re.escape(str(saved / "config.json")) + ".*" + told):
        load_pretrained(saved)


def test_a_changed_or_missing_file_of_weights_is_refused_by_name(saved):
    file = saved / "model.safetensors"
    whole = file.read_bytes()
    for data in (whole[:-1], whole + b"\0", bytes([whole[0] ^ 1]) + whole[1:], b""):
        file.write_bytes(data)
        with pytest.raises(PretrainedError, match=r"model\.safetensors is not the file that was saved"):
            load_pretrained(saved)
    file.unlink()
    with pytest.raises(PretrainedError, match=r"model\.safetensors cannot be read: No such file"):
        load_pretrained(saved)
    os.mkfifo(file)
    with pytest.raises(PretrainedError, match=r"model\.safetensors cannot be read: it is not a regular file"):
        load_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(PretrainedError, match=r"holds no config\.json: it was not written by save_pretrained"):
        load_pretrained(saved)


def test_a_pickle_in_the_place_of_weights_is_not_opened(saved):
    from zoo.pretrained.directory import _digest

    torch.save({"state_dict": {}}, saved / "model.safetensors")
    rewrite(saved, sha256=_digest((saved / "model.safetensors").read_bytes()))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_pretrained(saved)


def test_links_as_a_client_of_the_hub_makes_them_are_followed(saved, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in FILES:
        (saved / name).rename(blobs / f"{len(name)}")
        (snapshot / name).symlink_to(blobs / f"{len(name)}")
    assert load_pretrained(snapshot).hparams["hidden"] == (3,)


def test_a_run_is_told_from_a_saved_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(PretrainedError, match=r"holds no config\.json: there is the checkpoint .*best\.ckpt"):
        load_pretrained(tmp_path)


# ---------------------------------------------------------------------- the card


def front_matter(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_says_what_the_model_is_and_what_it_is_worth():
    task = CNNClassifier(channels=(2, 3))
    found = describe(
        task, metrics={"test/accuracy": 0.9942, "test/top2_accuracy": 0.999, "test/loss": 0.3, "val/f1": 1}
    )
    record = type(found.record)(**{**vars(found.record), "data": "MNIST", "mean": (33.3,), "std": (78.6,)})
    card = model_card(record, task, "Reads *digits*.", "mit", ["digits", "pytorch"], name="reader")
    about = front_matter(card)
    assert about["library_name"] == "lightning-model-zoo"
    assert about["license"] == "mit"
    assert about["pipeline_tag"] == "image-classification"
    assert about["tags"] == ["pytorch", "lightning", "CNNClassifier", "digits"]
    assert about["metrics"] == ["accuracy", "top2_accuracy"]
    [model] = about["model-index"]
    [result] = model["results"]
    assert (model["name"], result["task"], result["dataset"]["name"]) == (
        "reader", {"type": "image-classification"}, "MNIST"
    )  # fmt: skip
    assert result["metrics"][0] == {"type": "accuracy", "name": "test accuracy", "value": 0.9942}
    assert "| accuracy | 0.9942 |" in card
    assert "Reads *digits*." in card
    assert "less 33.3, over 78.6" in card
    assert f"{sum(each.numel() for each in task.parameters()):,} parameters" in card


def test_what_is_not_known_is_not_in_the_card():
    for task, pipeline in (
        (LinearRegressor(), "tabular-regression"),
        (BinaryMLPClassifier(), "tabular-classification"),
        (LSTMForecaster(), "time-series-forecasting"),
        (CRNNTranscriber(), "image-to-text"),
        (VGGClassifier(channels=(2,), depths=(1,)), "image-classification"),
        (EnsembleClassifier(({"class": "LeNet5Classifier"},)), "image-classification"),
        (EnsembleClassifier(({"class": "MLPClassifier", "hidden": (3,)},)), "tabular-classification"),
        (Sorter(), "tabular-classification"),
    ):
        about = front_matter(model_card(describe(task).record, task))
        assert about["pipeline_tag"] == pipeline
        assert not {"license", "metrics", "model-index", "datasets"} & set(about)


def test_a_card_cannot_be_broken_by_what_is_written_in_it():
    task = LinearRegressor()
    record = describe(task).record
    for options in ({"license": "mit\n---\nevil: yes"}, {"tags": ["a", "b\n---\n"]}, {"tags": [3]}, {"license": ""}):
        with pytest.raises(PretrainedError, match="must be a line of text, got"):
            model_card(record, task, **options)
    about = front_matter(model_card(record, task, tags=["a: b", "---", "- x", "'", "#"], name="a\n---\nb"))
    assert about["tags"][3:] == ["a: b", "---", "- x", "'", "#"]


def test_the_hubs_own_library_reads_the_card(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    data = {"test/accuracy": 0.5, "test/loss": 1.0}
    task = MLPClassifier(in_features=4, hidden=(3,), num_classes=3)
    module = TensorDataModule(torch.randn(60, 4), torch.arange(60) % 3, batch_size=8)
    module.setup()
    folder = save_pretrained(task, tmp_path / "sorter", datamodule=module, metrics=data, license="mit", tags=["a"])
    card = hub.ModelCard.load(folder / "README.md")
    assert card.data.library_name == "lightning-model-zoo"
    assert card.data.license == "mit"
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["accuracy"].metric_value == 0.5
    assert results["accuracy"].dataset_name == "tensors"
    assert card.data.model_name == "sorter"
