"""Weights that come with the zoo: that they are what the manifest says, and that nothing else is taken for them."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from datamodules import MNISTDataModule
from zoo import CNNClassifier, LeNet5Classifier, MulticlassClassification, load_pretrained
from zoo.checkpointing import CheckpointError, save_weights
from zoo.leaves import LEAVES, UnknownTaskError
from zoo.pretrained import (
    ManifestEntry,
    ManifestError,
    PretrainedError,
    find_shipped,
    list_pretrained,
    shipped,
    write_manifest,
)
from zoo.pretrained.loading import open_pretrained
from zoo.pretrained.shipped import FOLDER, open_shipped

REPOSITORY = Path(__file__).parents[2]
HAS_MNIST = (REPOSITORY / "data" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").is_file()
FEW = 500


@pytest.fixture(scope="module")
def pictures():
    """Test images of MNIST, or else of the bundled digits, as each of the shipped models sees them."""
    made = {}

    def see(entry):
        form = (entry.data_arguments["image_size"], entry.data_arguments["as_rows"])
        if form not in made:
            data = MNISTDataModule(
                str(REPOSITORY / "data"), *(("MNIST", "local") if HAS_MNIST else ("digits",)), image_size=form[0]
            )
            data.setup()
            made[form] = data.splits.test.features[:FEW], data.splits.test.targets[:FEW]
        images, labels = made[form]
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (entry.mean, entry.std))
        seen = (images - mean) / std
        return (seen.squeeze(1) if form[1] else seen), labels

    return see


OF_MNIST = [name for name, entry in shipped().items() if entry.data == "MNIST"]


def test_there_are_some_and_they_can_be_listed():
    assert {"mnist_softmax", "mnist_mlp", "mnist_cnn"} <= set(zoo.list_pretrained())
    assert list_pretrained() == sorted(shipped())
    assert list_pretrained("mnist_s*") == ["mnist_softmax"]
    assert list_pretrained("none*") == []


def test_there_is_one_of_each_experiment_on_mnist():
    modules = (REPOSITORY / "experiments").glob("mnist_*.py")
    assert {path.stem for path in modules} - set(zoo.list_pretrained()) == set()


@pytest.mark.parametrize("name", list_pretrained())
def test_an_entry_says_all_there_is_to_know(name):
    entry = find_shipped(name)
    assert entry.class_name in LEAVES
    assert entry.file == f"{name}.safetensors"
    assert entry.command.startswith(f"python -m experiments.{name} --seed_everything {entry.seed}")
    assert {"python", "torch", "lightning"} <= set(entry.versions)
    assert {"train", "val", "test"} == set(entry.checksums)
    assert entry.data_class in ("MNISTDataModule", "DigitStringsDataModule")
    assert not {"data_dir", "source"} & set(entry.data_arguments)
    assert any(metric in entry.metrics for metric in ("test/accuracy", "test/cer"))


@pytest.mark.parametrize("name", list_pretrained())
def test_weights_come_back_by_their_name_ready_for_use(name):
    task, entry = load_pretrained(name), find_shipped(name)
    assert type(task) is LEAVES[entry.class_name]
    assert not any(module.training for module in task.modules())
    assert {parameter.dtype for parameter in task.parameters()} == {torch.float32}
    if isinstance(task, MulticlassClassification):
        assert task.temperature == (1.0 if entry.temperature is None else entry.temperature)


@pytest.mark.parametrize("name", OF_MNIST)
def test_it_reads_digits_as_well_as_its_entry_says(name, pictures):
    entry = find_shipped(name)
    images, labels = pictures(entry)
    with torch.inference_mode():
        prediction = load_pretrained(name).predict_step(images)
    found = prediction.argmax(dim=1) if isinstance(prediction, torch.Tensor) else prediction.classes
    accuracy = float((found == labels).float().mean())
    # The first images of MNIST's test set are neither harder nor easier than all; other digits are harder.
    assert accuracy >= entry.metrics["test/accuracy"] - (0.03 if HAS_MNIST else 0.5)


def test_labels_that_were_smoothed_leave_calibrated_probabilities():
    entry = find_shipped("mnist_cnn")
    assert entry.arguments["label_smoothing"] > 0
    assert entry.temperature < 0.8  # as they came out of training, they were too low
    assert entry.metrics["test/ece"] < 0.01


def test_all_weights_together_fit_into_a_wheel():
    assert sum((FOLDER / entry.file).stat().st_size for entry in shipped().values()) < 9_000_000
    assert {path.name for path in FOLDER.glob("*.safetensors")} == {entry.file for entry in shipped().values()}


def test_loading_neither_unpickles_nor_imports_a_client_of_the_hub():
    code = (
        "import sys, pickle, torch\n"
        "def refuse(*args, **kwargs): raise SystemExit('unpickled')\n"
        "torch.load = pickle.load = pickle.loads = refuse\n"
        "import zoo\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "zoo.load_pretrained('mnist_softmax')\n"
        "print('huggingface_hub' in sys.modules)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "False\n"


# ---------------------------------------------------------------------- a folder of one's own


@pytest.fixture
def folder(tmp_path):
    """A manifest of one model, as weights come with the zoo."""
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
    unknown = dataclasses.replace(entry, class_name="CNN")
    write_manifest({"small_cnn": entry, "unknown": unknown}, tmp_path / "manifest.json")
    return tmp_path, model


def make(name, path):
    found = open_shipped(name, path)
    return found.make(found.task_class())


def test_a_model_comes_back_by_its_name(folder):
    path, model = folder
    again = make("small_cnn", path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert find_shipped("small_cnn", path).data == "MNIST"


def test_a_name_that_is_not_there_is_answered_with_those_that_are(folder, tmp_path):
    with pytest.raises(ManifestError, match=r"no pretrained weights 'big': there are small_cnn, unknown"):
        find_shipped("big", folder[0])
    assert shipped(tmp_path / "empty") == {}
    with pytest.raises(ManifestError, match="none are shipped"):
        open_shipped("big", tmp_path / "empty")
    with pytest.raises(UnknownTaskError, match="unknown is a CNN, which this version"):
        make("unknown", folder[0])
    with pytest.raises(ManifestError, match=r"no pretrained weights 'mnist_cn': .*; did you mean mnist_cnn\?"):
        load_pretrained("mnist_cn")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"channels": (2, 4), "hidden": None}, "weights in small_cnn are not those"),
        ({"channels": (2, 3), "hidden": None, "colour": "red"}, "small_cnn is no CNNClassifier of this .* colour"),
        ({"channels": (10**6, 10**6), "hidden": 10**6}, "not those of its hyperparameters|many times the size"),
        ({"channels": (2, 3), "hidden": None, "weights": "/etc/passwd"}, "small_cnn is no CNNC.* weights"),
    ],
)
def test_weights_of_another_model_are_refused(folder, arguments, told):
    path, _ = folder
    other = dataclasses.replace(find_shipped("small_cnn", path), arguments=arguments)
    write_manifest({"small_cnn": other}, path / "manifest.json")
    with pytest.raises(CheckpointError, match=told):
        make("small_cnn", path)


@pytest.mark.parametrize("where", [0, 8, 200, -1])
def test_a_single_changed_byte_is_refused_by_name(folder, where):
    path, _ = folder
    file = path / "small.safetensors"
    data = bytearray(file.read_bytes())
    data[where] ^= 1
    file.write_bytes(data)
    with pytest.raises(ManifestError, match=r"small\.safetensors is not the file that was shipped: its SHA-256 is"):
        make("small_cnn", path)


def test_what_the_manifest_was_changed_to_is_refused(folder):
    path, _ = folder
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["small_cnn"]["file"] = "../small.safetensors"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match="entry small_cnn: file must be the plain name"):
        open_shipped("small_cnn", path)


# ---------------------------------------------------------------------- what else may be named


def test_a_name_is_that_of_shipped_weights_whatever_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist_softmax").mkdir()
    assert load_pretrained("mnist_softmax").network.linear.in_features == 784
    for other in ("./mnist_softmax", Path("mnist_softmax"), str(tmp_path / "mnist_softmax")):
        with pytest.raises(PretrainedError, match=r"mnist_softmax holds no config\.json"):
            load_pretrained(other)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "there is no checkpoint file"),
        ("none.ckpt", "there is no checkpoint file none.ckpt"),
        ("owner/model", r"nothing is downloaded.*snapshot_download\('owner/model'\)"),
        ("https://example.org/model", "is a URL"),
        ("hf://owner/model", "is a URL"),
        ("x\0y", "there are no pretrained weights"),
        ("x" * 5000, "there are no pretrained weights"),
        ("../mnist_cnn", "there is no checkpoint file"),
        ("\x1b[2J", "there are no pretrained weights '.x1b"),
    ],
)
def test_a_source_that_there_is_not_is_answered_in_a_line(source, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=told) as refused:
        load_pretrained(source)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 1000


def test_weights_without_a_model_are_refused(tmp_path):
    shutil.copy(FOLDER / "mnist_softmax.safetensors", tmp_path / "a.safetensors")
    with pytest.raises(PretrainedError, match="holds weights and not which model"):
        load_pretrained(tmp_path / "a.safetensors")


def test_a_class_may_be_asked_for():
    assert isinstance(load_pretrained("mnist_cnn", CNNClassifier), CNNClassifier)
    with pytest.raises(PretrainedError, match="mnist_cnn is a CNNClassifier, not a LeNet5Classifier: load it as CNN"):
        load_pretrained("mnist_cnn", LeNet5Classifier)
    for other in (torch.nn.Linear, "CNNClassifier", 3):
        with pytest.raises(TypeError, match=r"cls must be a subclass of zoo\.Task"):
            load_pretrained("mnist_cnn", other)
    assert isinstance(open_pretrained("mnist_cnn").record, ManifestEntry)
