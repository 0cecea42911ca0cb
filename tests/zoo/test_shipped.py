import hashlib

import pytest
import torch

from zoo import CNNClassifier
from zoo.checkpointing import CheckpointError, save_weights
from zoo.pretrained import ManifestEntry, ManifestError, find_shipped, load_shipped, shipped, write_manifest


@pytest.fixture
def folder(tmp_path):
    """A manifest of one model, as weights will come with the zoo."""
    model = CNNClassifier(channels=(2, 3), hidden=None)
    save_weights(model.network, tmp_path / "small.safetensors")
    entry = ManifestEntry(
        class_name="CNNClassifier",
        arguments={"channels": (2, 3), "hidden": None},
        data="MNIST",
        mean=(33.3,),
        std=(78.6,),
        metrics={"test/accuracy": 0.99},
        seed=0,
        command="python -m experiments.mnist_cnn",
        versions={"torch": "2.15.0"},
        file="small.safetensors",
        sha256=hashlib.sha256((tmp_path / "small.safetensors").read_bytes()).hexdigest(),
    )
    write_manifest({"small_cnn": entry, "unknown": _of_class(entry, "CNN")}, tmp_path / "manifest.json")
    return tmp_path, model


def _of_class(entry, name):
    return ManifestEntry(**{**vars(entry), "class_name": name})


def test_a_model_comes_back_by_its_name(folder):
    path, model = folder
    again = load_shipped("small_cnn", path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert find_shipped("small_cnn", path).data == "MNIST"


def test_a_name_that_is_not_there_is_answered_with_those_that_are(folder, tmp_path):
    with pytest.raises(ManifestError, match=r"no pretrained weights 'big': there are small_cnn, unknown"):
        find_shipped("big", folder[0])
    assert shipped(tmp_path / "empty") == {}
    with pytest.raises(ManifestError, match="none are shipped"):
        load_shipped("big", tmp_path / "empty")
    with pytest.raises(ManifestError, match="unknown is a CNN, which this version"):
        load_shipped("unknown", folder[0])


def test_weights_of_another_model_are_refused(folder):
    path, _ = folder
    entry = find_shipped("small_cnn", path)
    other = ManifestEntry(**{**vars(entry), "arguments": {"channels": (2, 4), "hidden": None}})
    write_manifest({"small_cnn": other}, path / "manifest.json")
    with pytest.raises(CheckpointError, match="weights in small_cnn are not those"):
        load_shipped("small_cnn", path)
