import enum
import functools
import os
import pickle
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from torch import nn

from zoo import CNNClassifier
from zoo.checkpointing import (
    CheckpointError,
    load_weights,
    read_checkpoint,
    require_local_file,
    require_plain,
    save_weights,
    write_checkpoint,
)
from zoo.networks import MLP, ConvNet, Linear, Polynomial


@pytest.fixture
def checkpoint(make_trainer, make_images, tmp_path):
    """A checkpoint of a small model after an epoch."""
    task = CNNClassifier(channels=(4,), hidden=None, image_size=8, padding=None)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_images(8))
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    return tmp_path / "good.ckpt"


def both(path, match):
    """Both ways of reading refuse ``path`` with the same words."""
    for read in (read_checkpoint, CNNClassifier.load_from_checkpoint):
        with pytest.raises(CheckpointError, match=match):
            read(path)


def test_a_checkpoint_is_read_as_plain_values_and_tensors_on_the_cpu(checkpoint):
    contents = read_checkpoint(str(checkpoint))
    assert (contents["epoch"], contents["global_step"]) == (1, 2)
    assert {value.device.type for value in contents["state_dict"].values()} == {"cpu"}
    assert contents["hyper_parameters"]["channels"] == (4,)


@pytest.mark.parametrize("url", ["https://example.org/model.ckpt", "s3://bucket/model.ckpt", "file:///model.ckpt"])
def test_a_url_is_refused_with_what_to_do(url):
    both(url, "is a URL: download the file and check where it comes from, then pass its path")


def test_a_url_that_went_through_a_path_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both(PurePosixPath("https://example.org/model.ckpt"), "there is no checkpoint file")


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    both(tmp_path / "none.ckpt", "there is no checkpoint file .*none.ckpt")
    both(tmp_path, "is a directory, give a file$")
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt", "best-calibrated.ckpt"):
        (tmp_path / "checkpoints" / name).touch()
    both(tmp_path, r"is a directory, give a file: there is .*checkpoints/best\.ckpt$")
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        require_local_file("none.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999])
def test_a_truncated_file_is_refused(checkpoint, share):
    contents = checkpoint.read_bytes()
    checkpoint.write_bytes(contents[: int(share * len(contents))])
    both(checkpoint, "good.ckpt is not a checkpoint that can be read safely")


@pytest.mark.parametrize(
    "contents",
    [b"\0" * 100, b"not a checkpoint at all\n", b"PK\x03\x04 nearly a zip", b"\x80\x02}q\x00.", b"<html></html>"],
)
def test_garbage_is_refused(tmp_path, contents):
    (tmp_path / "garbage.ckpt").write_bytes(contents)
    both(tmp_path / "garbage.ckpt", "garbage.ckpt is not a checkpoint that can be read safely")


@pytest.mark.parametrize("contents", [torch.zeros(3), {"weights": torch.zeros(3)}, [1, 2]])
def test_a_file_of_torch_that_is_no_checkpoint_is_refused(tmp_path, contents):
    torch.save(contents, tmp_path / "other.pt")
    both(tmp_path / "other.pt", "other.pt is not a Lightning checkpoint: it has no 'state_dict'")


@pytest.mark.parametrize(
    ("key", "value"),
    [("state_dict", [1]), ("state_dict", 5), ("pytorch-lightning_version", 2), ("pytorch-lightning_version", "latest")],
)
def test_a_checkpoint_without_weights_by_name_or_a_version_is_refused(checkpoint, key, value):
    torch.save({**torch.load(checkpoint, weights_only=True), key: value}, checkpoint)
    both(checkpoint, f"good.ckpt is not a Lightning checkpoint: its '{key}' is {value!r}".replace("[", r"\["))


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, directory):
        self.directory = directory

    def __reduce__(self):
        return os.mkdir, (str(self.directory),)


@pytest.mark.parametrize("forced", [None, "1"], ids=["", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
def test_code_in_a_checkpoint_is_never_run(checkpoint, tmp_path, monkeypatch, forced, zipped, place):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    contents = torch.load(checkpoint, weights_only=True)
    contents[place]["evil"] = Payload(tmp_path / "executed")
    torch.save(contents, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=zipped)
    both(tmp_path / "evil.ckpt", "evil.ckpt is not a checkpoint that can be read safely")
    assert not (tmp_path / "executed").exists()


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))  # else the test before would prove nothing
    assert (tmp_path / "executed").is_dir()


def test_a_bare_pickle_is_never_run(tmp_path):
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": Payload(tmp_path / "executed")}))
    both(tmp_path / "evil.ckpt", "evil.ckpt is not a checkpoint that can be read safely")
    assert not (tmp_path / "executed").exists()


def test_unsafe_loading_is_refused_before_the_file_is_looked_at(checkpoint):
    with pytest.raises(ValueError, match="weights_only=False would run code from the file: it is not supported"):
        CNNClassifier.load_from_checkpoint(checkpoint, weights_only=False)


def test_the_message_is_one_line(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


class Colour(enum.Enum):
    """Not plain."""

    RED = 1


class Level(enum.IntEnum):
    """An int to ``isinstance``, and not plain."""

    HIGH = 1


OBJECTS = {
    "module": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "partial": (functools.partial(torch.optim.SGD, lr=0.1), "functools.partial"),
    "class": (torch.optim.SGD, "builtins.type"),
    "lambda": (lambda x: x, "builtins.function"),
    "path": (Path("runs"), "pathlib"),
    "enum": (Colour.RED, "Colour"),
    "int enum": (Level.HIGH, "Level"),
    "numpy float": (np.float64(0.5), "numpy.float64"),
    "numpy int": (np.int64(5), "numpy.int64"),
    "numpy bool": (np.bool_(True), "numpy.bool"),
    "array": (np.zeros(3), "numpy.ndarray"),
    "tensor": (torch.zeros(3), "torch.Tensor"),
    "dtype": (torch.float32, "torch.dtype"),
    "set": ({1, 2}, "builtins.set"),
    "bytes": (b"abc", "builtins.bytes"),
    "complex": (1j, "builtins.complex"),
    "keys": ({1: "a"}, "builtins.dict"),
    "size": (torch.Size([1, 2]), "torch.Size"),
}


@pytest.mark.parametrize("nest", [lambda x: x, lambda x: [1, x], lambda x: ("a", (x,)), lambda x: {"a": {"b": [x]}}])
@pytest.mark.parametrize(("value", "kind"), OBJECTS.values(), ids=OBJECTS)
def test_a_hyperparameter_that_is_not_plain_is_named_with_its_type(value, kind, nest):
    with pytest.raises(TypeError, match=r"hyperparameter 'bad' holds a .* cannot bring back safely") as caught:
        require_plain({"good": 1, "bad": nest(value)})
    assert kind in str(caught.value)


PLAIN = {
    "flag": True,
    "count": 3,
    "rate": 1e-3,
    "infinite": float("inf"),
    "name": "relu",
    "nothing": None,
    "tuple": (1, 2.5, ("a", None)),
    "list": [1, [2, (3,)]],
    "dict": {"a": {"b": (1, 2)}, "c": []},
    "empty": (),
}


def test_plain_hyperparameters_pass_and_come_back_equal(tmp_path):
    require_plain(PLAIN)
    checkpoint = {"state_dict": {}, "pytorch-lightning_version": "2.6.4", "hyper_parameters": PLAIN}
    torch.save(checkpoint, tmp_path / "plain.ckpt")
    assert read_checkpoint(tmp_path / "plain.ckpt")["hyper_parameters"] == PLAIN


# ---------------------------------------------------------------------- weights


def make_convnet():
    return ConvNet(channels=(4,), image_size=8, kernel_size=5)


def test_weights_come_from_the_checkpoint_of_a_task(checkpoint):
    network = make_convnet()
    images = torch.randn(3, 1, 8, 8)
    assert load_weights(network, str(checkpoint)) is network
    expected = CNNClassifier.load_from_checkpoint(checkpoint).eval()(images)
    assert torch.equal(network.eval()(images), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(3),
        lambda: MLP(3, (4,), 2, norm="batch", activation="prelu"),
        lambda: Polynomial(4, 3),
        make_convnet,
    ],
    ids=["linear", "mlp", "polynomial", "convnet"],
)
def test_weights_come_from_a_state_dict(tmp_path, make):
    network = make()
    network(torch.randn(9, 1, 8, 8) if isinstance(network, ConvNet) else torch.randn(9, 3) + 5)  # moves the buffers
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    loaded = load_weights(make(), tmp_path / "weights.pt").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["epoch=3,val_accuracy=0.99.pt", "weights (1) [best]+ema.pt", "~gewicht$.pt"])
def test_weights_come_from_a_file_of_any_name(tmp_path, name):
    network = Linear(3)
    torch.save(network.state_dict(), tmp_path / name)  # torch calls the archive's folder after the file
    assert torch.equal(load_weights(Linear(3), tmp_path / name).state_dict()["linear.weight"], network.linear.weight)


@pytest.mark.parametrize("write", [lambda url: write_checkpoint({}, url), lambda url: save_weights(Linear(3), url)])
def test_nothing_is_written_to_a_url(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^s3://bucket/last.ckpt is a URL: files are written to local paths"):
        write("s3://bucket/last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_weights_in_the_format_of_torch_before_1_6_are_refused_with_what_to_do(tmp_path):
    torch.save(Linear(3).state_dict(), tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"has to be loaded where it is trusted and saved again"):
        load_weights(Linear(3), tmp_path / "weights.pt")


def test_weights_take_the_precision_of_the_network(tmp_path):
    torch.save(Linear(3).double().state_dict(), tmp_path / "weights.pt")
    assert load_weights(Linear(3), tmp_path / "weights.pt").linear.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Linear(4), r"linear.weight is \(1, 3\) in it and \(1, 4\) in the network"),
        (MLP(3, (4,), 1), r"hidden.0.weight is missing in it and \(4, 3\) in the network"),
        (nn.Identity(), r"linear.weight is \(1, 3\) in it and missing in the network"),
        (Polynomial(3), r"low is missing in it and \(1,\) in the network"),
    ],
)
def test_weights_of_another_network_are_refused_and_none_is_loaded(tmp_path, network, message):
    torch.save(Linear(3).state_dict(), tmp_path / "weights.pt")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"the weights in .*weights.pt are another network's: {message}"):
        load_weights(network, tmp_path / "weights.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "contents",
    [
        torch.zeros(2),
        [torch.zeros(2)],
        3,
        None,
        {"linear.weight": [1.0], "linear.bias": 2.0},
        {"model": Linear(3).state_dict()},
        {"state_dict": 5},
        {"state_dict": torch.zeros(2)},
        {"state_dict": {"network.linear.weight": 1.0}},
    ],
    ids=["tensor", "list", "number", "none", "numbers", "nested", "state number", "state tensor", "state of numbers"],
)
def test_a_file_without_weights_is_refused(tmp_path, contents):
    torch.save(contents, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="holds no weights: neither a checkpoint of a task nor a state dict"):
        load_weights(Linear(3), tmp_path / "weights.pt")


@pytest.mark.parametrize("contents", [{}, {1: torch.zeros(2)}, {"state_dict": {1: torch.zeros(2)}}])
def test_a_state_dict_without_a_known_name_is_another_networks(tmp_path, contents):
    torch.save(contents, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"linear.weight is missing in it and \(1, 3\) in the network"):
        load_weights(Linear(3), tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://example.org/weights.pt", "is a URL: download the file and check where it comes from"),
        ("none.pt", "there is no checkpoint file none.pt"),
        (".", ". is a directory, give a file"),
        ("", "there is no checkpoint file"),
    ],
)
def test_weights_are_a_local_file(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_weights(Linear(3), path)


@pytest.mark.parametrize("place", ["bare", "state dict", "network"])
def test_code_in_weights_is_never_run(tmp_path, monkeypatch, place):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    payload = Payload(tmp_path / "executed")
    contents = {"linear.weight": payload} if place != "network" else {"state_dict": {"network.linear.weight": payload}}
    if place == "bare":
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(contents))
    else:
        torch.save(contents, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"evil\.pt is not a checkpoint that can be read safely"):
        load_weights(Linear(3), tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_a_whole_module_is_no_weights(tmp_path):
    torch.save(Linear(3), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"holds zoo\.networks\.linear\.Linear, which is more than plain values"):
        load_weights(Linear(3), tmp_path / "module.pt")
