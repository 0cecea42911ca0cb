"""Exported models: that they are the same, whatever the batch, and say what they are."""

import copy
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import zoo
from zoo import MulticlassClassification, Regression, SequenceTranscription
from zoo.checkpointing import CheckpointError
from zoo.export import ExportError, MissingExtraError, Standardization, export_onnx, export_torch
from zoo.leaves import LEAVES
from zoo.networks import Recurrent, ShapeError

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

REPOSITORY = Path(zoo.__file__).parents[1]
EXPORTS = {"onnx": export_onnx, "torch": export_torch}
both_formats = pytest.mark.parametrize("name", EXPORTS)

MODELS = {
    "LinearRegressor": {"in_features": 3, "out_features": 2},
    "LinearRegressorFromScratch": {},
    "PolynomialRegressor": {"degree": 4, "domain": (-2.0, 2.0)},
    "MLPRegressor": {"in_features": 3, "hidden": (5,), "norm": "layer", "activation": "gelu"},
    "PerceptronClassifier": {},
    "BinaryMLPClassifier": {"hidden": (5,), "activation": "prelu", "threshold": 0.25},
    "SoftmaxClassifier": {"in_features": 6, "num_classes": 4},
    "MLPClassifier": {"in_features": 6, "num_classes": 4, "hidden": (5,), "activation": "leaky_relu"},
    "RegularizedMLPClassifier": {"in_features": 6, "num_classes": 4, "hidden": (5,), "input_dropout": 0.5},
    "DropoutMLPClassifier": {"in_features": 6, "num_classes": 4, "hidden": (5, 5)},
    "CNNClassifier": {"in_channels": 3, "channels": (4, 6), "hidden": 7, "image_size": 20, "dropout": 0.5},
    "VGGClassifier": {"in_channels": 3, "channels": (4, 6), "depths": (1, 2), "kernel_size": 5, "dropout": 0.5},
    "StridedCNNClassifier": {"in_channels": 3, "channels": (4, 6), "hidden": 7, "image_size": 20, "dropout": 0.5},
    "LeNet5Classifier": {},
    "LeNet5Regressor": {"num_classes": 3},
    "OneHotMLPRegressor": {"in_features": 6, "num_classes": 4, "hidden": (5,)},
    "RNNClassifier": {"in_features": 3, "hidden": 5, "cell": "gru", "bidirectional": True},
    "LSTMClassifier": {"in_features": 3, "num_classes": 4, "hidden": 5, "bidirectional": True, "dropout": 0.5},
    "EnsembleClassifier": {
        "members": (
            {"class": "SoftmaxClassifier", "in_features": 6},
            {"class": "RegularizedMLPClassifier", "in_features": 6, "hidden": (5,)},
        ),
        "num_classes": 4,
    },
    "LSTMForecaster": {"hidden": 5, "horizon": 2, "num_layers": 2},
    "CRNNTranscriber": {"alphabet": "ab \u00fc", "image_height": 8, "channels": (3, 4), "halve_width": 2, "hidden": 5},
}


def make(name):
    """The model, with statistics and weights as after a training, in training mode."""
    torch.manual_seed(0)
    task = LEAVES[name](**MODELS[name])
    with torch.no_grad():
        for buffer_name, buffer in task.named_buffers():
            if "running" in buffer_name:
                buffer.uniform_(0.5, 1.5)
    return task.train()


def make_inputs(task, samples=10, size=11):
    """Standard normal inputs; ``size`` steps, or columns, of sequences, whose lengths differ."""
    arguments = {**task.hparams.get("members", [{}])[0], **task.hparams}
    lengths = torch.linspace(size // 2, size, samples).long()
    if isinstance(task, SequenceTranscription):
        return torch.randn(samples, 1, arguments["image_height"], size), lengths
    if "num_layers" in arguments:
        return torch.randn(samples, size, arguments["in_features"]), lengths
    if "in_channels" in arguments or hasattr(task.network, "image_size"):
        side = getattr(task.network, "image_size", 20)
        return torch.randn(samples, arguments.get("in_channels", 1), side, side)
    return torch.randn(samples, arguments["in_features"])


def parts(inputs):
    return (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)


def run_onnx(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["inputs", "lengths"][: len(parts(inputs))]
    feed = {entry.name: part.numpy() for entry, part in zip(session.get_inputs(), parts(inputs), strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


def run_torch(path, inputs):
    with torch.no_grad():
        return torch.export.load(path).module()(*parts(inputs))


RUNS = {"onnx": run_onnx, "torch": run_torch}


def outputs_of(task, inputs):
    with torch.no_grad():
        return copy.deepcopy(task).eval()(*parts(inputs))


def properties(path):
    """What a file says of itself."""
    if Path(path).suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("extra/metadata.json")]
            return json.loads(archive.read(name))
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    texts = ("class", "alphabet", "valid_steps")
    return {key: value if key in texts else json.loads(value) for key, value in found.items()}


def test_every_leaf_is_exported_here():
    assert MODELS.keys() == LEAVES.keys()


@pytest.mark.filterwarnings("error")
@both_formats
@pytest.mark.parametrize("leaf", MODELS)
def test_a_leaf_gives_the_same_numbers_for_every_batch_and_length(tmp_path, capfd, leaf, name):
    task = make(leaf)
    before = copy.deepcopy(task.state_dict())
    path = tmp_path / f"model.{'onnx' if name == 'onnx' else 'pt2'}"
    done = EXPORTS[name](task, path, make_inputs(task))

    assert done.parity.max_abs_difference <= 1e-5
    assert done.parity.batch_sizes == (1, 2, 7)
    assert done.size == path.stat().st_size
    is_sequence = isinstance(make_inputs(task), tuple)
    assert len(done.parity.lengths) == (2 if is_sequence else 0)
    # Not the samples that it was measured with, and in the file that was written.
    for samples, size in ((1, 8), (2, 11), (7, 30)):
        inputs = make_inputs(task, samples, size)
        torch.testing.assert_close(RUNS[name](path, inputs), outputs_of(task, inputs), rtol=1e-5, atol=1e-5)

    assert list(tmp_path.iterdir()) == [path]
    data = path.read_bytes()
    for trace in (REPOSITORY, Path.cwd(), tmp_path, Path.home(), Path(torch.__file__).parent):
        assert str(trace).encode() not in data
    assert b".py" not in data
    assert task.training
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    assert capfd.readouterr() == ("", "")


@both_formats
def test_whole_sequences_need_no_lengths(tmp_path, name):
    task, path = make("LSTMClassifier"), tmp_path / "model"
    inputs, _ = make_inputs(task)
    done = EXPORTS[name](task, path, inputs)
    assert [(part.name, part.shape) for part in done.inputs] == [("inputs", ("batch", "steps", 3))]
    for steps in (1, 11, 40):
        sequences = torch.randn(3, steps, 3)
        torch.testing.assert_close(RUNS[name](path, sequences), outputs_of(task, sequences), rtol=1e-5, atol=1e-6)


@both_formats
def test_what_stands_in_the_padding_changes_nothing(tmp_path, name):
    task, path = make("CRNNTranscriber"), tmp_path / "model"
    EXPORTS[name](task, path, make_inputs(task))
    images, widths = make_inputs(task, 3, 24)
    outputs = RUNS[name](path, (images, widths))
    for image, width in zip(images, widths, strict=True):
        image[:, :, width:] = 1e6
    assert torch.equal(RUNS[name](path, (images, widths)), outputs)
    steps = widths // 4
    assert properties(path)["valid_steps"] == "lengths // 4" if name == "onnx" else True
    for row, valid in zip(outputs, steps, strict=True):
        assert (row[:valid] != 0.0).all()
        assert (row[valid:] == 0.0).all()


def test_a_file_says_what_it_is(tmp_path):
    task = make("CNNClassifier")
    scale = Standardization(torch.tensor([33.0, 40.0, 50.0]).reshape(3, 1, 1), torch.full((3, 1, 1), 78.5), "pixels")
    found = {}
    for name, suffix in (("onnx", ".onnx"), ("torch", ".pt2")):
        path = tmp_path / f"model{suffix}"
        done = EXPORTS[name](task, path, make_inputs(task), standardization=scale, data="10 samples of noise")
        found[name] = properties(path)
        assert found[name].pop("parity") == {
            "max_abs_difference": done.parity.max_abs_difference,
            "tolerance": done.parity.tolerance,
            "samples": 10,
            "batch_sizes": [1, 2, 7],
            "lengths": [],
            "data": "10 samples of noise",
        }
    assert found["onnx"] == found["torch"]
    about = found["onnx"]
    assert about["class"] == "zoo.models.CNNClassifier"
    assert about["standardization"] == {
        "formula": "(raw - mean) / std",
        "mean": [[[33.0]], [[40.0]], [[50.0]]],
        "std": [[[78.5]]] * 3,
        "raw": "pixels",
    }
    assert [(part["name"], part["dtype"], part["shape"]) for part in about["inputs"] + about["outputs"]] == [
        ("inputs", "float32", ["batch", 3, 20, 20]),
        ("logits", "float32", ["batch", 10]),
    ]
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    [given] = model.graph.input
    dims = given.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 20, 20]


def test_the_sizes_that_are_free_have_names(tmp_path):
    task = make("CRNNTranscriber")
    done = export_onnx(task, tmp_path / "model.onnx", make_inputs(task))
    assert done.output.shape == ("batch", "steps", 5)
    graph = onnx.load(tmp_path / "model.onnx").graph
    shapes = [[dim.dim_param or dim.dim_value for dim in part.type.tensor_type.shape.dim] for part in graph.input]
    assert shapes == [["batch", 1, 8, "width"], ["batch"]]
    assert properties(tmp_path / "model.onnx")["alphabet"] == "ab \u00fc"
    assert {"LSTM"} <= {node.op_type for node in graph.node}


WITHOUT_TORCH = """
import sys
for name in ("torch", "lightning", "zoo"):
    sys.modules[name] = None  # importing it is an ImportError
import numpy, onnxruntime
expected = numpy.load("expected.npz")
for model in ("cnn", "crnn"):
    session = onnxruntime.InferenceSession(f"{model}.onnx", providers=["CPUExecutionProvider"])
    feed = {entry.name: expected[f"{model}_{entry.name}"] for entry in session.get_inputs()}
    [outputs] = session.run(None, feed)
    print(numpy.abs(outputs - expected[f"{model}_outputs"]).max())
assert not [name for name in sys.modules if name.partition(".")[0] == "torch" and sys.modules[name]]
"""


def test_onnxruntime_runs_a_file_without_torch(tmp_path):
    expected = {}
    for short, leaf in (("cnn", "CNNClassifier"), ("crnn", "CRNNTranscriber")):
        task = make(leaf)
        inputs = make_inputs(task, 5, 16)
        export_onnx(task, tmp_path / f"{short}.onnx", inputs)
        for name, part in zip(("inputs", "lengths"), parts(inputs), strict=False):
            expected[f"{short}_{name}"] = part.numpy()
        expected[f"{short}_outputs"] = outputs_of(task, inputs).numpy()
    np.savez(tmp_path / "expected.npz", **expected)
    command = [sys.executable, "-I", "-c", WITHOUT_TORCH]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    differences = list(map(float, done.stdout.split()))
    assert len(differences) == 2
    assert max(differences) <= 1e-5


# ---------------------------------------------------------------------- probabilities


@both_formats
@pytest.mark.parametrize("leaf", ["SoftmaxClassifier", "BinaryMLPClassifier"])
def test_probabilities_are_those_that_the_task_predicts(tmp_path, leaf, name):
    task, path = make(leaf), tmp_path / "model"
    task.temperature = 2.5
    inputs = make_inputs(task)
    done = EXPORTS[name](task, path, inputs, probabilities=True)
    assert done.output.name == "probabilities"
    with torch.no_grad():
        expected = copy.deepcopy(task).eval().predict_step(inputs).probabilities
    torch.testing.assert_close(RUNS[name](path, inputs), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(expected, outputs_of(task, inputs))


def test_values_have_no_probabilities(tmp_path):
    task = make("LinearRegressor")
    with pytest.raises(ExportError, match="LinearRegressor predicts values, of which there are no probabilities"):
        export_torch(task, tmp_path / "model.pt2", make_inputs(task), probabilities=True)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- what a task may be


def test_half_precision_and_compiled_networks_are_exported_in_32_bits(tmp_path):
    task = make("MLPClassifier").bfloat16()
    inputs = make_inputs(task)
    expected = outputs_of(copy.deepcopy(task).float(), inputs)
    task.network.compile(backend="eager")
    export_onnx(task, tmp_path / "model.onnx", inputs)
    torch.testing.assert_close(run_onnx(tmp_path / "model.onnx", inputs), expected, rtol=1e-5, atol=1e-6)
    assert next(task.parameters()).dtype == torch.bfloat16


@both_formats
def test_anyones_network_in_a_task_is_exported(tmp_path, name):
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    task, inputs = MulticlassClassification(network=network, num_classes=3), torch.randn(3, 4)
    done = EXPORTS[name](task, tmp_path / "model", inputs)
    assert done.parity.samples == 3
    torch.testing.assert_close(RUNS[name](tmp_path / "model", inputs), outputs_of(task, inputs))


def test_a_recurrent_network_inside_anyones_is_exported(tmp_path):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = Recurrent(4, 5, 3, cell="rnn", read="every", bidirectional=True)

        def forward(self, inputs):
            return self.read(inputs).sum(dim=1)

    task, inputs = Regression(network=Tagger()), torch.randn(3, 6, 4)
    export_onnx(task, tmp_path / "model", inputs)
    torch.testing.assert_close(run_onnx(tmp_path / "model", inputs), outputs_of(task, inputs), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- what is refused


class AlwaysDropping(nn.Module):
    """As somebody writes dropout who forgets that it has a mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, inputs):
        return functional.dropout(self.linear(inputs), 0.5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, inputs):
        return self.linear(inputs) if inputs.sum() > 0 else inputs[:, :2]


class Broken(nn.Module):
    def forward(self, inputs):
        return inputs[:, :2] / 0.0


@pytest.mark.parametrize(
    ("name", "network", "message", "existing"),
    [
        ("onnx", AlwaysDropping, "the exported model differs from the module by .*: no file was written", True),
        ("torch", AlwaysDropping, "the exported model differs from the module by .*: no file was written", False),
        ("onnx", Branching, r"Regression cannot be exported: .* \(GuardOnDataDependentSymNode\)", False),
        ("torch", Branching, r"Regression cannot be exported: .* \(GuardOnDataDependentSymNode\)", True),
        ("torch", Broken, "the module's own outputs are NaN or infinite", False),
    ],
)
def test_what_is_not_the_same_leaves_no_file(tmp_path, name, network, message, existing):
    path = tmp_path / "model"
    if existing:
        path.write_bytes(b"before")
    with pytest.raises(ExportError, match=message) as caught:
        EXPORTS[name](Regression(network=network()), path, torch.randn(20, 4), overwrite=existing)
    assert "\n" not in str(caught.value)
    assert [(entry, entry.read_bytes()) for entry in tmp_path.iterdir()] == ([(path, b"before")] if existing else [])


@both_formats
@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.zeros(0, 3), ExportError, "at least one sample, and one length for each"),
        (torch.zeros(()), ExportError, "at least one sample"),
        (torch.zeros(2, 3, dtype=torch.uint8), ExportError, "must be floating-point numbers, as the network gets them"),
        ([torch.zeros(2, 3)] * 3, ExportError, "a tensor, or padded sequences and their lengths"),
        ((torch.zeros(2, 3), torch.zeros(3)), ExportError, "one length for each"),
        ((torch.zeros(2, 3), torch.ones(2)), ExportError, "LinearRegressor does not take these inputs"),
        (torch.zeros(2, 5), ShapeError, r"expected inputs of shape \(batch, 3\), got \(1, 5\)"),
    ],
)
def test_inputs_that_are_none_are_refused(tmp_path, inputs, error, message, name):
    with pytest.raises(error, match=message):
        EXPORTS[name](make("LinearRegressor"), tmp_path / "model", inputs)
    assert not list(tmp_path.iterdir())


@both_formats
def test_a_file_that_is_there_is_only_replaced_if_asked(tmp_path, name):
    task, path = make("PerceptronClassifier"), tmp_path / "model"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError, match="model is there already"):
        EXPORTS[name](task, path, make_inputs(task))
    assert path.read_bytes() == b"before"
    EXPORTS[name](task, path, make_inputs(task), overwrite=True)
    assert RUNS[name](path, make_inputs(task)).shape == (10,)
    with pytest.raises(IsADirectoryError, match="is a directory: give the name of a file in it"):
        EXPORTS[name](task, tmp_path, make_inputs(task), overwrite=True)
    with pytest.raises(CheckpointError, match="is a URL"):
        EXPORTS[name](task, "https://example.org/model", make_inputs(task))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/model' cannot be written: Not a directory"):
        EXPORTS[name](task, tmp_path / "file" / "model", make_inputs(task))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for taken in ("pipe", "link"):
        with pytest.raises(FileExistsError, match=f"{taken} is neither a file nor free"):
            EXPORTS[name](task, tmp_path / taken, make_inputs(task), overwrite=True)


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    task = make("PerceptronClassifier")
    with pytest.raises(MissingExtraError, match=r'not installed \(onnxscript\): pip install -e "\.\[export\]"'):
        export_onnx(task, tmp_path / "model.onnx", make_inputs(task))
    assert export_torch(task, tmp_path / "model.pt2", make_inputs(task)).size


def test_samples_are_not_in_the_file(tmp_path):
    task = make("LinearRegressor")
    export_torch(task, tmp_path / "model.pt2", torch.full((10, 3), 1.2345))
    data = (tmp_path / "model.pt2").read_bytes()
    buffer = io.BytesIO()
    np.save(buffer, np.full(3, 1.2345, dtype=np.float32))
    assert buffer.getvalue()[-12:] not in data
