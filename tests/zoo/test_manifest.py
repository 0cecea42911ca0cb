import dataclasses
import hashlib
import json
import os
import re

import pytest

from zoo.checkpointing import CheckpointError
from zoo.checkpointing.strict_json import JSONError, parse_json
from zoo.pretrained import manifest
from zoo.pretrained.manifest import (
    ManifestEntry,
    ManifestError,
    parse_manifest,
    read_manifest,
    read_verified,
    write_manifest,
)

WEIGHTS = bytes(range(256)) * 10
ENTRY = ManifestEntry(
    class_name="CNNClassifier",
    arguments={"channels": (32, 64), "dropout": 0.1, "hidden": None, "nested": {"on": True, "pairs": ((1, 2), (3,))}},
    data="MNIST",
    mean=(33.3,),
    std=(78.6,),
    metrics={"test/accuracy": 0.995, "test/loss": 0.02},
    seed=0,
    command="python -m experiments.mnist_cnn --seed 0",
    versions={"torch": "2.15.0"},
    file="mnist_cnn.safetensors",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
)


def written(**changes):
    """A manifest of one entry, as JSON, with some fields changed."""
    return json.dumps({"mnist": {**dataclasses.asdict(ENTRY), **changes}}).encode()


def test_what_is_written_is_read_again(tmp_path):
    other = dataclasses.replace(ENTRY, file="other.safetensors", mean=(1.0, 2.0), std=(0.5, 3), seed=2**32 - 1)
    other = dataclasses.replace(other, temperature=0.5, data_class="MNISTDataModule", checksums={"val": 2**32 - 1})
    other = dataclasses.replace(other, data_arguments={"image_size": 32, "as_rows": True}, module="zoo.models")
    write_manifest({"mnist-cnn_1.0": ENTRY, "other": other}, tmp_path / "manifest.json")
    entries = read_manifest(str(tmp_path / "manifest.json"))
    assert entries == {"mnist-cnn_1.0": ENTRY, "other": other}
    assert entries["other"].arguments["nested"]["pairs"] == ((1, 2), (3,))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("class_name", value) for value in ["", "os.system", "a b", "1A", 3, None, "A" * 200, "Ä", "A\n"]],
        *[("arguments", value) for value in [[], None, {"": 1}, {"not a name": 1}, {"a": {"\n": 1}}, {"a": "\0"}]],
        *[("data", value) for value in ["", 3, None, "two\nlines", "\x1b[2J", "x" * 1001]],
        *[("mean", value) for value in [[], 0.5, None, ["0.5"], [True], [None], [[0.5]]]],
        *[("std", value) for value in [[0], [-1.0], [], [1.0, 2.0], "1"]],
        *[("metrics", value) for value in [{"a": "1"}, {"a": None}, {"a": True}, [0.5], {"": 1}]],
        *[("seed", value) for value in [-1, 2**32, 0.0, True, "0", None]],
        *[("command", value) for value in ["", 1, ["rm"], "a\0b"]],
        *[("versions", value) for value in [{"torch": 2}, {"torch": ""}, "2.15", None]],
        *[
            ("file", value)
            for value in [
                "../x.safetensors",
                "/x.safetensors",
                "a/x.safetensors",
                "a\\x.safetensors",
                "..\\x.safetensors",
                "C:x.safetensors",
                "C:\\x.safetensors",
                "\\\\host\\x.safetensors",
                "..safetensors",
                ".safetensors",
                ".x.safetensors",
                "x\0.safetensors",
                "x.safetensors\n",
                "x.safetensors ",
                "x.safetensors:stream",
                "x.safetensors\0.png",
                "~x.safetensors",
                "-x.safetensors",
                "NUL.safetensors",
                "con.x.safetensors",
                "COM1.safetensors",
                "x.ckpt",
                "x",
                "",
                "http:.safetensors",
                "ä.safetensors",
                "x" * 300 + ".safetensors",
                3,
                None,
            ]
        ],
        *[("module", value) for value in ["", "os.", "a b", ".zoo", "zoo..models", 3, "a." * 200 + "a", "zoo\n"]],
        *[("data_class", value) for value in ["", "a.b", 3, "A" * 200]],
        *[("data_arguments", value) for value in [[], None, {"a b": 1}, {"a": "\0"}]],
        *[("checksums", value) for value in [{"val": -1}, {"val": 2**32}, {"val": 1.0}, {"val": True}, [1], None]],
        *[("temperature", value) for value in [0, -1.0, "1", True, [1.0]]],
        *[("sha256", value) for value in ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", 0, None]],
    ],
)
def test_value_of_another_form_is_refused_by_entry_and_field(field, value):
    with pytest.raises(ManifestError, match=f"^some/manifest, entry mnist: {field} must be "):
        parse_manifest(written(**{field: value}), "some/manifest")


OPTIONAL = {"module", "data_class", "data_arguments", "checksums", "temperature"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ManifestEntry)])
def test_missing_key_is_refused(field):
    values = dataclasses.asdict(ENTRY)
    del values[field]
    if field in OPTIONAL:
        assert parse_manifest(json.dumps({"mnist": values}).encode(), "manifest") == {"mnist": ENTRY}
        return
    with pytest.raises(ManifestError, match="entry mnist: it must have exactly the keys class_name, arguments"):
        parse_manifest(json.dumps({"mnist": values}).encode(), "manifest")


@pytest.mark.parametrize("values", [{**dataclasses.asdict(ENTRY), "more": 1}, [], "text", None, 1])
def test_entry_of_other_keys_is_refused(values):
    with pytest.raises(ManifestError, match="entry mnist: it must have exactly the keys"):
        parse_manifest(json.dumps({"mnist": values}).encode(), "manifest")


@pytest.mark.parametrize("name", ["", "../mnist", "a b", "a\nb", ".hidden", "x" * 101, "\x1b[2J"])
def test_entry_name_that_is_not_plain_is_refused(name, tmp_path):
    with pytest.raises(ManifestError, match=r"manifest: the entry name .* must be of letters"):
        parse_manifest(json.dumps({name: dataclasses.asdict(ENTRY)}).encode(), "manifest")
    with pytest.raises(ManifestError, match="the entry name"):
        write_manifest({name: ENTRY}, tmp_path / "manifest.json")
    assert list(tmp_path.iterdir()) == []


NO_JSON = {
    "empty": (b"", "not JSON"),
    "cut short": (written()[:-1], "not JSON"),
    "more behind it": (written() + b"{}", "not JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + written(), "not JSON: Unexpected UTF-8 BOM"),
    "UTF-16": (written().decode().encode("utf-16"), "not UTF-8 at byte 0"),
    "broken UTF-8": (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "not Unicode"),
    "surrogate in a list": (b'["\\udfff"]', "not Unicode"),
    "surrogate in a key": (b'{"\\ud800": 1}', "not Unicode"),
    "key twice": (b'{"a": 1, "a": 1}', "'a' stands twice"),
    "key twice inside": (b'{"a": [{"b": 1, "b": 2}]}', "'b' stands twice"),
    "not a number": (b'{"a": NaN}', "NaN is no number"),
    "infinity": (b'{"a": [-Infinity]}', "-Infinity is no number"),
    "number beyond floats": (b'{"a": 1e999}', "1e999 is not finite"),
    "integer beyond 64 bits": (b'{"a": 9223372036854775808}', "more than 64 bits"),
    "endless integer": (b'{"a": ' + b"9" * 100_000 + b"}", "more than 64 bits"),
    "nested lists": (b"[" * 100_000 + b"]" * 100_000, "nested"),
    "nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "nested a little too deep": (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
    "control character": (b'{"a": "\n"}', "not JSON"),
}


@pytest.mark.parametrize(("data", "told"), NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_of_one_meaning_is_refused(data, told):
    with pytest.raises(ManifestError, match=f"some/manifest is no manifest: .*{re.escape(told)}"):
        parse_manifest(data, "some/manifest")


def test_strict_json_reads_what_json_reads():
    value = {"a": [1, -(2**63) + 1, 0.5, None, True, "\U0001f600 ü"], "b": {"c": {}}, "d": "", "e": [[[]]]}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json(b"[" * 63 + b"]" * 63) is not None
    with pytest.raises(JSONError):
        parse_json(b"")


@pytest.mark.parametrize("data", [b"[]", b"1", b'"text"', b"null"])
def test_json_that_is_no_object_is_no_manifest(data):
    with pytest.raises(ManifestError, match="it is not a JSON object"):
        parse_manifest(data, "manifest")


def test_errors_are_short_whatever_is_in_the_file():
    for data in (written(command="x" * 500_000), json.dumps({"a" * 500_000: 1}).encode(), b"[" * 500_000):
        with pytest.raises(ManifestError) as caught:
            parse_manifest(data, "manifest")
        assert len(str(caught.value)) < 500


def test_manifest_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b" " * (manifest.MAX_MANIFEST_SIZE - 2) + b"{}")
    assert read_manifest(tmp_path / "manifest.json") == {}
    (tmp_path / "manifest.json").write_bytes(b" " * manifest.MAX_MANIFEST_SIZE + b"{}")
    with pytest.raises(ManifestError, match="larger than 1,048,576 bytes"):
        read_manifest(tmp_path / "manifest.json")
    many = {f"entry{index}": ENTRY for index in range(3000)}
    with pytest.raises(ManifestError, match="was not written: it would be larger"):
        write_manifest(many, tmp_path / "many.json")


def test_manifest_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", "https://example.org/manifest.json", "nul\0"):
        with pytest.raises(ManifestError, match=r"there is no checkpoint file|is a directory, give a file|is a URL"):
            read_manifest(path)


def test_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "folder").write_text("no folder")
    with pytest.raises(CheckpointError, match="could not be written"):
        write_manifest({"mnist": ENTRY}, tmp_path / "folder" / "manifest.json")


# The files it is about.


@pytest.fixture
def shipped(tmp_path):
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / ENTRY.file).write_bytes(WEIGHTS)
    return folder


def test_verified_bytes_are_those_of_the_file(shipped):
    assert read_verified(str(shipped), ENTRY) == WEIGHTS


@pytest.mark.parametrize("contents", [b"", WEIGHTS[:-1], WEIGHTS + b"\0", WEIGHTS[:-1] + b"\0"])
def test_other_bytes_are_refused_by_name(shipped, contents):
    (shipped / ENTRY.file).write_bytes(contents)
    with pytest.raises(ManifestError, match=rf"{ENTRY.file} is not the file that was shipped.*{ENTRY.sha256}"):
        read_verified(shipped, ENTRY)


def test_link_out_of_the_folder_is_refused_even_to_the_right_bytes(shipped):
    (shipped / ENTRY.file).rename(shipped.parent / "elsewhere")
    (shipped / ENTRY.file).symlink_to(shipped.parent / "elsewhere")
    with pytest.raises(ManifestError, match="is a link out of its folder"):
        read_verified(shipped, ENTRY)


def test_folder_may_be_a_link_itself(shipped):
    (shipped.parent / "link").symlink_to(shipped)
    assert read_verified(shipped.parent / "link", ENTRY) == WEIGHTS


def test_what_is_no_file_is_refused(shipped):
    (shipped / ENTRY.file).unlink()
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        read_verified(shipped, ENTRY)
    os.mkfifo(shipped / ENTRY.file)
    with pytest.raises(ManifestError, match="cannot be read: it is not a regular file"):
        read_verified(shipped, ENTRY)
    (shipped / ENTRY.file).unlink()
    (shipped / ENTRY.file).symlink_to(shipped / ENTRY.file)
    with pytest.raises(ManifestError, match=r"cannot be read|is a link out"):
        read_verified(shipped, ENTRY)


def test_file_that_is_too_large_is_refused_unread(shipped, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_WEIGHTS_SIZE", len(WEIGHTS) - 1)
    with pytest.raises(ManifestError, match="larger than 2,559 bytes"):
        read_verified(shipped, ENTRY)
