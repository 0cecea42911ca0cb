import itertools
import json
import os
import struct
import zlib
from contextlib import suppress

import pytest
import safetensors.torch
import torch
from torch import nn

from zoo.checkpointing import CheckpointError, load_weights, read_checkpoint
from zoo.checkpointing.safetensors_files import is_safetensors, parse_safetensors, save_weights
from zoo.networks import MLP, Linear


@pytest.fixture
def saved(tmp_path):
    """A small network's weights, and the file they are in."""
    network = MLP(3, (4,), 2)
    save_weights(network, tmp_path / "weights.safetensors")
    return network, tmp_path / "weights.safetensors"


def same(first, second):
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def of(header, values=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def test_weights_come_back(saved):
    network, path = saved
    other = MLP(3, (4,), 2)
    assert not same(network, other)
    assert load_weights(other, str(path)) is other
    assert same(network, other)


def test_buffers_and_all_types_come_back(tmp_path):
    network = nn.BatchNorm1d(3)
    network.register_buffer("bfloat", torch.arange(3, dtype=torch.bfloat16))
    network.register_buffer("empty", torch.zeros(0, 4))
    network.register_buffer("flags", torch.tensor([True, False]))
    network.num_batches_tracked.fill_(7)
    save_weights(network, tmp_path / "w")
    tensors = parse_safetensors((tmp_path / "w").read_bytes(), "w")
    assert {name: value.dtype for name, value in tensors.items()} == {
        name: value.dtype for name, value in network.state_dict().items()
    }
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())


def test_other_readers_read_the_file(saved):
    network, path = saved
    theirs = safetensors.torch.load_file(path)
    assert theirs.keys() == network.state_dict().keys()
    assert all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items())


def test_files_of_other_writers_are_read(tmp_path, saved):
    network, _ = saved
    safetensors.torch.save_file(network.state_dict(), tmp_path / "theirs", {"format": "pt"})
    assert same(load_weights(MLP(3, (4,), 2), tmp_path / "theirs"), network)


def test_same_weights_give_the_same_bytes(saved, tmp_path):
    network, path = saved
    save_weights(network, tmp_path / "new folder" / "again.safetensors")
    assert (tmp_path / "new folder" / "again.safetensors").read_bytes() == path.read_bytes()
    assert [entry.name for entry in (tmp_path / "new folder").iterdir()] == ["again.safetensors"]


def test_shared_and_strided_tensors_are_written(tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    network.register_buffer("strided", torch.arange(6.0).reshape(2, 3).T)
    save_weights(network, tmp_path / "w")
    tensors = parse_safetensors((tmp_path / "w").read_bytes(), "w")
    assert torch.equal(tensors["0.weight"], network[0].weight)
    assert torch.equal(tensors["1.weight"], network[0].weight)
    assert tensors["strided"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_file_of_tensors_is_no_checkpoint(saved):
    with pytest.raises(CheckpointError, match="is not a Lightning checkpoint"):
        read_checkpoint(saved[1])


def test_weights_of_another_network_are_refused(saved):
    with pytest.raises(CheckpointError, match="are another network's"):
        load_weights(Linear(3), saved[1])


def test_format_is_known_by_content(saved, tmp_path):
    data = saved[1].read_bytes()
    assert is_safetensors(data)
    torch.save({"a": torch.zeros(1)}, tmp_path / "zip")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle", _use_new_zipfile_serialization=False)
    others = [(tmp_path / name).read_bytes() for name in ("zip", "pickle")]
    assert not any(map(is_safetensors, [*others, b"", data[:8], b'{"a": 1} {"b": 2}']))


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path):
    network = nn.Linear(2, 1)
    save_weights(network, tmp_path / "w")
    data = (tmp_path / "w").read_bytes()
    harmless = set()
    for place, bit in itertools.product(range(len(data)), range(8)):
        changed = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        with suppress(CheckpointError):
            tensors = parse_safetensors(changed, "w")
            assert tensors.keys() == network.state_dict().keys()
            assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
            harmless.add(place)
    # Of the checksum's own name, without which the file is one of another writer.
    start = data.index(b"zoo-crc32")
    assert {place for place in harmless if data[place : place + 1] != b" "} <= set(range(start, start + 9))


def test_every_truncation_is_noticed(saved):
    data = saved[1].read_bytes()
    for size in range(len(data)):
        with pytest.raises(CheckpointError, match="some/weights is damaged"):
            parse_safetensors(data[:size], "some/weights")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED = {
    "header beyond the file": struct.pack("<Q", 10**6) + b"{}",
    "enormous header": struct.pack("<Q", 2**31) + b"{}",
    "no JSON": of(b"{nonsense}"),
    "a list": of(b"{}")[:8] + b"[]",
    "a tensor twice": of(b'{"a": %s, "a": %s}' % ((json.dumps(F32).encode(),) * 2)),
    "overlapping tensors": of({"a": F32, "b": {**F32, "shape": [1], "data_offsets": [0, 4]}}),
    "values beyond the file": of({"a": {**F32, "shape": [4], "data_offsets": [0, 16]}}),
    "values of nobody": of({"a": {**F32, "shape": [1], "data_offsets": [0, 4]}}),
    "negative place": of({"a": {**F32, "data_offsets": [-8, 0]}}),
    "shape beyond the values": of({"a": {**F32, "shape": [3]}}),
    "shape beyond any memory": of({"a": {**F32, "shape": [2**62]}}),
    "endless integer": of(b'{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 8]}}' % (b"9" * 5000)),
    "unknown type": of({"a": {**F32, "dtype": "F33"}}),
    "type that torch has not": of({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}),
    "nested header": of(b'{"a":' + b"[" * 100_000),
    "metadata of numbers": of({"__metadata__": {"zoo-crc32": 1}, "a": F32}),
    "wrong checksum": of({"__metadata__": {"zoo-crc32": f"{zlib.crc32(b''):08x}"}, "a": F32}),
    "tensor that is a number": of({"a": 1}),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_refused_by_name(data, tmp_path):
    with pytest.raises(CheckpointError, match="some/weights is damaged"):
        parse_safetensors(data, "some/weights")
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(CheckpointError, match=str(tmp_path / "w")):
        load_weights(Linear(3), tmp_path / "w")


class WithExtraState(nn.Linear):
    def get_extra_state(self):
        return {"anything": 1}

    def set_extra_state(self, state):
        pass


def test_state_that_is_no_tensor_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(CheckpointError, match="was not written: _extra_state is a dict, not a tensor"):
        save_weights(WithExtraState(1, 1), tmp_path / "w")
    network = nn.Linear(1, 1)
    network.register_buffer("sparse", torch.zeros(2, 2).to_sparse())
    with pytest.raises(CheckpointError, match="was not written"):
        save_weights(network, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_written_leaves_the_old_one(saved, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    network, path = saved
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; the file that was there before is untouched"):
        save_weights(network, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
