"""Data files, weights without code, manifests and pictures to be fuzzed."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import torch
from fuzz import Target
from mutations import INTERESTING, blind, in_archive
from PIL import Image
from torch import nn
from torchvision import datasets

from datamodules import DataError, TensorDataModule, mnist_files
from datamodules.idx import parse_idx
from datamodules.image_files import IMAGE_FORMATS, read_image
from datamodules.mnist_files import MNISTFiles
from zoo import MLPClassifier, load_pretrained, save_pretrained
from zoo.checkpointing import CheckpointError, load_weights
from zoo.checkpointing.safetensors_files import save_weights
from zoo.pretrained.manifest import ManifestEntry, ManifestError, read_manifest, read_verified, write_manifest

Image.init()  # before the processes that open files are forked

# ---------------------------------------------------------------------- MNIST and its relatives

SAMPLES = 10
IMAGES = struct.pack(">IIII", 2051, SAMPLES, 28, 28) + bytes(index % 251 for index in range(SAMPLES * 784))
LABELS = struct.pack(">II", 2049, SAMPLES) + bytes(range(SAMPLES))
EMNIST_FILES = {
    f"emnist-digits-{part}-{kind}-ubyte.gz": gzip.compress(contents)
    for part in ("train", "test")
    for kind, contents in (("images-idx3", IMAGES), ("labels-idx1", LABELS))
}


def idx_files(directory):
    one_image = struct.pack(">IIII", 2051, 1, 28, 28) + IMAGES[16 : 16 + 784]
    return [one_image, LABELS, struct.pack(">II", 2049, 300) + bytes(300)]


def open_idx(path):
    contents = path.read_bytes()
    values = parse_idx(contents, str(path))
    assert values.dtype == torch.uint8
    assert values.numel() == len(contents) - 4 - 4 * values.ndim


def archives(directory):
    return [gzip.compress(LABELS, level, mtime=0) for level in (0, 9)]


def open_archive(path):
    """As the labels of an official data set, whose sum is that of the changed file."""
    mnist_files._SAMPLES = {"train": SAMPLES, "t10k": SAMPLES}
    data = path.read_bytes()
    images, labels = gzip.compress(IMAGES), data
    with _data_dir() as data_dir:
        resources = []
        for name, contents in (("t10k-images-idx3-ubyte.gz", images), ("t10k-labels-idx1-ubyte.gz", labels)):
            resources.append((name, hashlib.md5(contents).hexdigest()))
            (data_dir / "FashionMNIST" / "raw" / name).write_bytes(contents)
        datasets.FashionMNIST.resources = resources
        _check(*MNISTFiles(data_dir, "FashionMNIST", may_download=False).load(train=False))


def bundles(directory):
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            for name, contents in {"emnist-letters.gz": b"other", **EMNIST_FILES}.items():
                archive.writestr(zipfile.ZipInfo(f"gzip/{name}"), contents, method)
        seeds.append(packed.getvalue())
    return seeds


def open_bundle(path):
    """As the official bundle, whose sum is that of the changed file."""
    mnist_files._EMNIST_SAMPLES = {"train": SAMPLES, "test": SAMPLES}
    data = path.read_bytes()
    datasets.EMNIST.md5 = hashlib.md5(data).hexdigest()
    with _data_dir() as data_dir:
        (data_dir / "EMNIST" / "raw" / "gzip.zip").write_bytes(data)
        for train in (True, False):
            _check(*MNISTFiles(data_dir, "EMNIST", may_download=False).load(train=train))
        files = {path.name for path in data_dir.glob("EMNIST/raw/*")}
        outside = [path for path in data_dir.rglob("*") if path.is_file() and path.parent.name != "raw"]
        assert not outside
        own = {*EMNIST_FILES, *(name.removesuffix(".gz") for name in EMNIST_FILES), "gzip.zip", ".lock"}
        assert files <= own, files - own


@contextlib.contextmanager
def _data_dir():
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        for dataset in ("FashionMNIST", "EMNIST"):
            (Path(name) / dataset / "raw").mkdir(parents=True)
        yield Path(name)


def _check(images, labels):
    assert images.shape == (SAMPLES, 28, 28)
    assert labels.shape == (SAMPLES,)
    assert int(labels.max()) < 10


def in_gzip(random, data, others):
    """Changes what is packed, and packs it anew with a right checksum; now and then a great deal of it."""
    contents = gzip.decompress(data)
    if random.random() < 0.1:
        contents += bytes(random.choice([1, 4096, 10**5, 5 * 10**6]))
    packed = gzip.compress(blind(random, contents, [contents]), random.choice([0, 1, 9]), mtime=0)
    return packed * random.choice([1, 1, 1, 2]) + random.choice([b"", b"", b"\0", b"garbage"])


def in_member(random, data, others):
    """Changes what is packed in a member of a bundle, which then has right checksums all around."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        chosen = random.choice(old.namelist()[1:])
        for name in old.namelist():
            contents = old.read(name)
            new.writestr(zipfile.ZipInfo(name), in_gzip(random, contents, others) if name == chosen else contents)
    return changed.getvalue()


# ---------------------------------------------------------------------- safetensors and manifests

JSON_VALUES = [
    *("null", "true", "-1", "0", "1e400", "-0.0", "NaN", "Infinity", "[]", "{}", '""', '"x"', "[[]]", '{"a": 1}'),
    *('"\\ud800"', '"\\u0000"', '"../x"', '"C:\\\\x"', '"/etc/passwd"', '"F64"', '"BOOL"', '"I8"', '"F4"', '"a" "b"'),
    *("9" * 5000, "1e" + "9" * 50, "[" * 5000, '{"a":' * 5000, '"' + "x" * 5000 + '"', '{"a": 1, "a": 2}', "\ufeff1"),
    *(str(value) for value in INTERESTING),
]


class Tensors(nn.Module):
    """A module with tensors of several types and shapes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 3, dtype=torch.float16))


def safetensors_files(directory):
    torch.manual_seed(0)
    seeds = []
    for checksum in (True, False):
        save_weights(Tensors(), directory / "weights")
        data = (directory / "weights").read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        seeds.append(data if checksum else _with_header(data, json.dumps({**header, "__metadata__": {}}).encode()))
    return seeds


def in_header(random, data, others):
    """Changes the header of a safetensors file, and its size with it."""
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    return _with_header(data, random.choice([in_json, in_json, blind])(random, header, [header]))


def _with_header(data, header):
    values = data[8 + int.from_bytes(data[:8], "little") :]
    return struct.pack("<Q", len(header)) + header + values


def in_json(random, data, others):
    """Changes values, keys or the order of JSON, and writes text that need not be any."""
    spots = []

    def visit(holder):
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            spots.append((holder, key))
            if isinstance(holder[key], dict | list):
                visit(holder[key])

    top = [json.loads(data)]
    visit(top)
    holder, key = random.choice(spots)
    way = random.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[random.choice(["", "extra", "../x", "\u202e", "__metadata__", key.upper()])] = holder.pop(key)
    elif way == 2:
        other, place = random.choice(spots)
        holder[key] = json.loads(json.dumps(other[place])) if place in other or other is top else None
    else:
        holder[key] = "HERE"
    text = json.dumps(top[0] if top else None)
    return text.replace('"HERE"', random.choice(JSON_VALUES)).encode("utf-8", "surrogatepass")


def manifests(directory):
    (directory / "weights.safetensors").write_bytes(b"weights")
    entry = ManifestEntry(
        class_name="CNNClassifier",
        arguments={"channels": (32, 64), "dropout": 0.1, "hidden": None, "deep": {"pairs": ((1, 2), (3,))}},
        data="MNIST",
        mean=(33.3,),
        std=(78.6,),
        metrics={"test/accuracy": 0.995},
        seed=0,
        command="python -m experiments.mnist_cnn",
        versions={"torch": "2.15.0"},
        file="weights.safetensors",
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )
    write_manifest({"first": entry}, directory / "one.json")
    write_manifest({"first": entry, "second": dataclasses.replace(entry, seed=1)}, directory / "two.json")
    return [(directory / name).read_bytes() for name in ("one.json", "two.json")]


def configurations(directory):
    """Those of one model, with more and with less that is known of it."""
    data = TensorDataModule(torch.randn(30, 4), torch.arange(30) % 3, batch_size=8, standardize=True)
    data.setup()
    found = []
    for name, known in (("less", {}), ("more", {"datamodule": data, "metrics": {"test/accuracy": 0.5}})):
        torch.manual_seed(0)
        task = MLPClassifier(4, 3, (3,))
        task.temperature = 0.5 if known else 1.0
        found.append((save_pretrained(task, directory / name, **known) / "config.json").read_bytes())
    return found


def open_configuration(path):
    """The configuration with the model's weights beside it."""
    torch.manual_seed(0)
    folder = path.parent / "model"
    if not folder.is_dir():
        save_pretrained(MLPClassifier(4, 3, (3,)), folder)
    (folder / "config.json").write_bytes(path.read_bytes())
    task = load_pretrained(folder)
    assert isinstance(task, MLPClassifier)
    assert {name: tuple(value.shape) for name, value in task.state_dict().items()} == {
        "network.hidden.0.weight": (3, 4),
        "network.hidden.0.bias": (3,),
        "network.head.weight": (3, 3),
        "network.head.bias": (3,),
    }
    assert task.temperature > 0


def open_manifest(path):
    folder = path.parent
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "outside").mkdir(exist_ok=True)
    entries = read_manifest(path)
    for entry in entries.values():
        assert Path(entry.file).name == entry.file
        assert read_verified(folder, entry) == b"weights"
    write_manifest(entries, folder / "again.json")
    assert read_manifest(folder / "again.json") == entries


# ---------------------------------------------------------------------- pictures

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
}
WITHOUT_WHITE = {"I", "F"}
TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "group4", "zstd", "lzma")


def pictures(kind):
    def seeds(directory):
        found = []
        for mode in MODES[kind]:
            if mode in WITHOUT_WHITE:  # refused as they are
                continue
            image = _picture(mode)
            exif = Image.Exif()
            exif[274] = 6
            found.append(_encoded(image, kind, exif=exif) if kind != "BMP" else _encoded(image, kind))
        gradient = _picture("RGB")
        if kind == "JPEG":
            found.append(_encoded(gradient, kind, progressive=True))
        if kind == "WEBP":
            found.append(_encoded(gradient, kind, lossless=True))
        if kind in ("GIF", "WEBP", "PNG", "TIFF"):
            found.append(_encoded(gradient, kind, save_all=True, append_images=[_picture("RGB").rotate(90)]))
        if kind == "TIFF":
            found += [_compressed(compression) for compression in TIFF_COMPRESSIONS]
        return [data for data in found if data is not None]

    return seeds


def _picture(mode):
    gradient = Image.linear_gradient("L").resize((17, 13))
    if mode == "I;16":
        return Image.frombytes("I;16", (17, 13), bytes(index % 256 for index in range(17 * 13 * 2)))
    return Image.merge("RGB", (gradient, gradient.rotate(180), gradient)).convert(mode)


def _encoded(image, kind, **options):
    packed = io.BytesIO()
    image.save(packed, kind, **options)
    return packed.getvalue()


def _compressed(compression):
    """A TIFF file, unless Pillow was built without this compression."""
    try:
        return _encoded(_picture("1" if compression == "group4" else "RGB"), "TIFF", compression=compression)
    except (OSError, KeyError, ValueError):
        return None


def open_picture(path):
    values = read_image(path)
    assert values.dtype == torch.uint8
    assert values.ndim == 2
    assert 0 < values.numel() <= 64_000_000


def in_png(random, data, others):
    """Changes a chunk of a PNG file, packed ones inside, and writes it with a right checksum."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    index = random.randrange(len(chunks))
    kind, contents = chunks[index]
    way = random.randrange(6)
    if way == 0:
        chunks.insert(random.randrange(len(chunks)), chunks[index])
    elif way == 1:
        del chunks[index]
    elif way == 2 and kind == b"IDAT":
        rows = zlib.decompress(contents)
        chunks[index] = (kind, zlib.compress(blind(random, rows, [rows]) * random.choice([1, 1, 2, 10**4])))
    elif contents:
        chunks[index] = (kind, blind(random, contents, [contents]))
    return data[:8] + b"".join(
        struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))
        for kind, contents in chunks
    )


def in_riff(random, data, others):
    """Changes a WebP file behind the size in its header, and that size with it."""
    changed = data[:12] + blind(random, data[12:], [data[12:]])
    return changed[:4] + struct.pack("<I", len(changed) - 8) + changed[8:]


def in_tags(random, data, others):
    """Changes a field of a directory of a TIFF file: its tag, type, count or value."""
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2])):
        entry = start + 2 + 12 * random.randrange(count)
        offset, size = random.choice([(0, 2), (2, 2), (4, 4), (8, 4), (8, 4), (8, 4)])
        value = random.choice([*INTERESTING, random.randrange(20), len(data)]) % 256**size
        changed[entry + offset : entry + offset + size] = value.to_bytes(size, "little")
    return bytes(changed)


PICTURE_MUTATORS = {"PNG": [blind, in_png, in_png], "WEBP": [blind, in_riff], "TIFF": [blind, in_tags, in_tags]}

TARGETS = [
    Target("idx", idx_files, open_idx, (DataError,), [blind]),
    Target("mnist-archive", archives, open_archive, (DataError,), [blind, in_gzip], ".gz"),
    Target("emnist-bundle", bundles, open_bundle, (DataError,), [blind, in_archive, in_member], ".zip"),
    Target(
        "safetensors",
        safetensors_files,
        lambda path: load_weights(Tensors(), path),
        (CheckpointError,),
        [blind, in_header],
        ".safetensors",
    ),
    Target(
        "saved-model",
        configurations,
        open_configuration,
        (CheckpointError,),
        [blind, in_json, in_json, in_json],
        ".json",
    ),
    Target("manifest", manifests, open_manifest, (ManifestError,), [blind, in_json, in_json], ".json"),
    *[
        Target(
            f"picture-{kind.lower()}",
            pictures(kind),
            open_picture,
            (DataError,),
            PICTURE_MUTATORS.get(kind, [blind]),
            f".{kind.lower()}",
        )
        for kind in IMAGE_FORMATS
    ],
]
