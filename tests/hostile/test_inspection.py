"""Files that make torch allocate gigabytes, crash or never end, although it reads them with ``weights_only=True``."""

import io
import resource
import struct
import zipfile

import pytest
import torch
from mutations import named, number, text
from payloads import with_pickle

from zoo import LSTMForecaster, MLPClassifier, MulticlassClassification, RNNClassifier
from zoo.checkpointing import CheckpointError, load_weights, read_checkpoint, write_checkpoint

PROTOCOL = b"\x80\x02"
RECORD = [("data/0", b"\0" * 16)]


def storage(count, key="0", kind="FloatStorage"):
    return b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(sizes, strides, offset=0, inside=None):
    arguments = (storage(4) if inside is None else inside) + number(offset) + numbers(sizes) + numbers(strides)
    hooks = named("collections", "OrderedDict") + b")R"
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"\x89" + hooks + b"tR"


def call(module, name, *arguments):
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def doubled(times):
    """A tuple of itself and itself, so many times: a hundred instructions for more values than there are atoms."""
    return b")" + b"".join(b"q" + bytes([step]) + b"h" + bytes([step]) + b"\x86" for step in range(times))


COLLIDING = b"}(" + b"".join(number(index * (2**61 - 1)) + b"N" for index in range(1000)) + b"u"

ATTACKS = {
    "more elements than bytes": (tensor([1000], [1]), RECORD, "larger than its record"),
    "storage larger than its record": (storage(10**9), RECORD, "its tensors want another number"),
    "storage without a record": (storage(4, key="1"), RECORD, "a record that is not in it"),
    "storage outside the archive": (storage(4, key="../../0"), RECORD, "a record that is not in it"),
    "meta storage": (storage(4).replace(text("cpu"), text("meta")), RECORD, "a record that is not in it"),
    "one element repeated 10**12 times": (tensor([10**12], [0]), RECORD, "many times the memory of the file"),
    "negative stride": (tensor([2], [-1]), RECORD, "a shape that no tensor has"),
    "negative offset": (tensor([2], [1], offset=-1), RECORD, "a shape that no tensor has"),
    "a thousand dimensions": (tensor([1] * 1000, [1] * 1000), RECORD, "a shape that no tensor has"),
    "bytearray": (call("__builtin__", "bytearray", number(3 * 10**9)), [], "of another kind than its use"),
    "tensor class": (call("torch", "FloatTensor", number(10**9)), [], "holds torch.FloatTensor"),
    "storage class": (call("torch.storage", "UntypedStorage", number(3 * 10**9)), [], "calls torch.storage"),
    "quantised": (call("torch._utils", "_rebuild_qtensor", number(1)), [], "holds torch._utils._rebuild_qtensor"),
    "wrapper": (call("torch._utils", "_rebuild_wrapper_subclass"), [], "holds torch._utils._rebuild_wrapper_subclass"),
    "without values": (
        call("torch._utils", "_rebuild_meta_tensor_no_storage"),
        [],
        "holds torch._utils._rebuild_meta_tensor_no_storage",
    ),
    "slow encoding": (call("_codecs", "encode", text("é" * 30000), text("idna")), [], "holds bytes in a way"),
    "nested 100,000 deep": (b")" + b"\x85" * 100_000, [], "nested more than 100 deep"),
    "nested key": (b"})" + b"\x85" * 1_000_000 + b"Ns", [], "nested more than 100 deep"),
    "nested key, shallow": (b"})\x85\x85Ns", [], "a key that is neither text nor a number"),
    "doubled 90 times": (doubled(90), [], "repeated so often"),
    "colliding keys": (COLLIDING, [], "a key that is neither text nor a number"),
    "holding itself": (b"]q\x00h\x00a", [], "holds itself"),
    "memo": (b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff0", [], "the instruction POP"),
    "attributes": (
        call("collections", "OrderedDict") + b"}" + text("keys") + b"Nsb",
        [],
        "attributes that torch does not",
    ),
    "new object": (named("torch", "FloatTensor") + number(10**9) + b"\x85\x81", [], "holds torch.FloatTensor"),
    "protocol": (b"\x80\x04N", [], "protocol 4"),
    "frame": (b"\x95" + b"\xff" * 8, [], "the instruction FRAME"),
    "long text": (b"X\xff\xff\xff\xff", [], "damaged"),
    "empty": (b"", [], "damaged"),
}


@pytest.mark.parametrize(("instructions", "records", "reason"), ATTACKS.values(), ids=ATTACKS)
def test_a_pickle_that_would_grow_is_refused_before_it_does(tmp_path, instructions, records, reason):
    (tmp_path / "evil.ckpt").write_bytes(with_pickle(PROTOCOL + instructions + b".", records))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_checkpoint, lambda path: load_weights(torch.nn.Linear(1, 1), path)):
        with pytest.raises(CheckpointError, match=f"is not a checkpoint that can be read safely: .*{reason}"):
            read(tmp_path / "evil.ckpt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def archive(names, compression=zipfile.ZIP_STORED, comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name), b"\x80\x02N." + b" " * 10**6, compression)
        file.comment = comment
    return buffer.getvalue()


GOOD = archive(["archive/data.pkl"])
ARCHIVES = {
    "bomb": (archive(["archive/data.pkl"], zipfile.ZIP_DEFLATED), "a compressed archive"),
    "two of a name": (archive(["archive/data.pkl", "archive/DATA.pkl"]), "two records of one name"),
    "path": (archive(["archive/data.pkl", "archive/../x"]), "names that torch does not give"),
    "absolute": (archive(["/data.pkl"]), "names that torch does not give"),
    "two folders": (archive(["archive/data.pkl", "other/data.pkl"]), "two records of one name, or without a common"),
    "no pickle": (archive(["archive/other"]), "without the values"),
    "something behind": (GOOD + b"x", "not where it should be"),
    "something before": (b"PK\x03\x04" + GOOD, "damaged"),
    "directory twice": (archive(["archive/data.pkl"], comment=GOOD[-100:]), "not where it should be|damaged"),
    "more records than it has": (GOOD[:-12] + b"\x09\0" + GOOD[-10:], "another number of records"),
    "tar": (b"data.pkl" + b"\0" * 92 + b"0000644\0" + b"\0" * 404, "not the zip archive that torch writes"),
    "cut": (GOOD[:-30], "cut short"),
    "declares 4 GB": (
        GOOD.replace(struct.pack("<II", 10**6 + 4, 10**6 + 4), struct.pack("<II", 2**32 - 2, 2**32 - 2)),
        "declares more than it holds",
    ),
}


@pytest.mark.parametrize(("data", "reason"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_torch_does_not_write_is_refused(tmp_path, data, reason):
    (tmp_path / "evil.ckpt").write_bytes(data)
    with pytest.raises(CheckpointError, match=f"is not a checkpoint that can be read safely: .*({reason})"):
        read_checkpoint(tmp_path / "evil.ckpt")


def test_what_torch_saves_of_plain_values_and_tensors_comes_back(tmp_path):
    values = {
        "numbers": [0, -5, 2**100, 1.5, float("inf"), True, None],
        "complex": 1j,
        "bytes": (b"abc", bytearray(b"q")),
        "set": {1, 2},
        "sizes": torch.Size([1, 2]),
        "device": torch.device("cuda:0"),
        "dtype": torch.bfloat16,
        "int keys": {0: {(1, "a"): 2}},
    }
    tensors = {
        "view": torch.arange(10)[2:5],
        "transposed": torch.ones(3, 4).t(),
        "expanded": torch.ones(1).expand(10),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "unsigned": torch.ones(2, dtype=torch.uint16),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    base = {"state_dict": torch.nn.BatchNorm1d(3).state_dict(), "pytorch-lightning_version": "2.6.6"}
    write_checkpoint({**base, "values": values, "tensors": tensors}, tmp_path / "all.ckpt")
    contents = read_checkpoint(tmp_path / "all.ckpt")
    assert contents["values"] == values
    for name, value in tensors.items():
        assert torch.equal(contents["tensors"][name], value), name
    assert contents["state_dict"]._metadata[""] == {"version": 2}


# ---------------------------------------------------------------------- hyperparameters that ask for too much


@pytest.mark.parametrize(
    ("model", "name", "value", "reason"),
    [
        (MLPClassifier(in_features=4, num_classes=3), "hidden", (10**9,), "many times the size of its weights"),
        (MLPClassifier(in_features=4, num_classes=3), "hidden", (10**18,), "no MLPClassifier can be made"),
        (MLPClassifier(in_features=4, num_classes=3), "hidden", (1,) * 50_000, "many times the size of its weights"),
        (MLPClassifier(in_features=4, num_classes=3), "hidden", (4, 4), r"network.hidden.0.weight is \(.*\) in it and"),
        (MLPClassifier(in_features=4, num_classes=3), "hidden", "abc", "no MLPClassifier can be made"),
        (MLPClassifier(in_features=4, num_classes=3), "num_classes", 10**10, "many times the size of its weights"),
        (RNNClassifier(in_features=4, num_classes=3), "num_layers", 10**9, "many times the size of its weights"),
        (LSTMForecaster(), "hidden", 10**6, "many times the size of its weights"),
    ],
)
def test_hyperparameters_make_no_model_larger_than_its_weights(tmp_path, model, name, value, reason):
    hyperparameters = {**model.hparams, name: value}
    assert name in model.hparams
    contents = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.6"}
    write_checkpoint({**contents, "hyper_parameters": hyperparameters}, tmp_path / "evil.ckpt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=reason) as caught:
        type(model).load_from_checkpoint(tmp_path / "evil.ckpt")
    assert len(str(caught.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_bare_task_makes_no_metrics_larger_than_its_network(tmp_path):
    network = torch.nn.Linear(4, 3)
    model = MulticlassClassification(network=network, num_classes=3)
    contents = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.6"}
    write_checkpoint({**contents, "hyper_parameters": {**model.hparams, "num_classes": 10**10}}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="many times the size of its weights"):
        MulticlassClassification.load_from_checkpoint(tmp_path / "evil.ckpt", network=network)


@pytest.mark.parametrize("value", [5, [1], {1: 2}, {"hidden": {1, 2}}, None])
def test_hyperparameters_of_another_kind_are_refused(tmp_path, value):
    model = MLPClassifier(in_features=4, num_classes=3)
    contents = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.6", "hyper_parameters": value}
    write_checkpoint(contents, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"hyperparameters"):
        MLPClassifier.load_from_checkpoint(tmp_path / "evil.ckpt")


def test_loading_draws_no_random_numbers_for_the_trial(tmp_path):
    model = MLPClassifier(in_features=4, num_classes=3)
    contents = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.6"}
    write_checkpoint({**contents, "hyper_parameters": dict(model.hparams)}, tmp_path / "good.ckpt")
    torch.manual_seed(0)
    MLPClassifier.load_from_checkpoint(tmp_path / "good.ckpt")
    after_loading = torch.rand(3)
    torch.manual_seed(0)
    MLPClassifier(**model.hparams)
    assert torch.equal(after_loading, torch.rand(3))
