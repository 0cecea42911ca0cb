"""What can be wrong with the files of MNIST, and with the machine they are on."""

import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from datamodules import DataError, mnist_files
from datamodules.atomic import read_bounded, sweep, whole_file
from datamodules.mnist_files import MNISTFiles

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
LABELS, IMAGES = "t10k-labels-idx1-ubyte", "t10k-images-idx3-ubyte"
NOBODY = 65_534


@pytest.fixture(autouse=True)
def no_real_network(monkeypatch, closed_mirror):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [closed_mirror])
    monkeypatch.setattr(datasets.EMNIST, "url", closed_mirror + "gzip.zip")


def raw(data_dir):
    return data_dir / "MNIST" / "raw"


def listing(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def load(data_dir, *, may_download=False):
    return MNISTFiles(data_dir, "MNIST", may_download=may_download).load(train=False)


def intact(data_dir, mnist):
    images, labels = load(data_dir)
    test = mnist.splits.test
    return torch.equal(images, test.features.squeeze(1)) and torch.equal(labels, test.targets.byte())


# Damage that torchvision's reader accepts.
ACCEPTED_BY_TORCHVISION = {
    "damaged pixels": (IMAGES, lambda contents: contents[:5000] + bytes(3000) + contents[8000:]),
    "label 200": (LABELS, lambda contents: contents[:-1] + bytes([200])),
    "5,000 labels for 10,000 images": (LABELS, lambda contents: struct.pack(">II", 2049, 5000) + contents[8:5008]),
    "images upside down": (IMAGES, lambda contents: contents[:16] + contents[:15:-1]),
}


@pytest.fixture(params=ACCEPTED_BY_TORCHVISION.values(), ids=ACCEPTED_BY_TORCHVISION)
def accepted_damage(request, archives_dir):
    name, damage = request.param
    load(archives_dir)
    file = raw(archives_dir) / name
    file.write_bytes(damage(file.read_bytes()))
    for missing in NAMES[:2]:  # torchvision asks whether all four are there
        (raw(archives_dir) / missing).touch()
    theirs = datasets.MNIST(str(archives_dir), train=False, download=False)
    assert len(theirs.data) == 10_000
    return file


def test_what_torchvision_accepts_is_mended(accepted_damage, archives_dir, mnist):
    assert intact(archives_dir, mnist)
    assert listing(raw(archives_dir)) == sorted([*NAMES, *(f"{name}.gz" for name in NAMES)])


def test_what_torchvision_accepts_is_refused_where_it_cannot_be_mended(accepted_damage, archives_dir):
    accepted_damage.with_name(f"{accepted_damage.name}.gz").unlink()
    with pytest.raises(DataError, match=f"{accepted_damage} is damaged.*put the official archives"):
        load(archives_dir)


# What stands in a file's place.


def enormous(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: no byte of it is on disk


IN_ITS_PLACE = {
    "folder": lambda path: path.mkdir(),
    "folder with something in it": lambda path: (path / "inner").mkdir(parents=True),
    "pipe": os.mkfifo,
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "terabyte": enormous,
}
something_else = pytest.mark.parametrize("put", IN_ITS_PLACE.values(), ids=IN_ITS_PLACE)


@something_else
def test_what_is_no_file_is_passed_over_for_the_archive(archives_dir, mnist, put):
    put(raw(archives_dir) / LABELS)
    assert intact(archives_dir, mnist)
    assert intact(archives_dir, mnist)


@something_else
def test_what_is_no_archive_is_refused_by_name(archives_dir, put):
    archive = raw(archives_dir) / f"{LABELS}.gz"
    archive.unlink()
    put(archive)
    with pytest.raises(DataError, match=f"{archive} is damaged, or cannot be checked"):
        load(archives_dir)


@something_else
def test_what_is_no_archive_is_replaced_or_the_error_says_why(archives_dir, mnist, put, server, monkeypatch):
    archive = raw(archives_dir) / f"{LABELS}.gz"
    server.contents = {archive.name: archive.read_bytes()}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [server.mirror("good")])
    archive.unlink()
    put(archive)
    if archive.is_dir() and not archive.is_symlink():
        with pytest.raises(DataError, match=r"cannot be written to.*(?i:is a directory|not empty)"):
            load(archives_dir, may_download=True)
    else:
        assert load(archives_dir, may_download=True)[1].shape == (10_000,)
        assert intact(archives_dir, mnist)
    assert [name for name in listing(raw(archives_dir)) if name.startswith(".")] == []


def test_link_is_replaced_and_what_it_names_is_left_alone(archives_dir, mnist, tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (raw(archives_dir) / LABELS).symlink_to(tmp_path / "precious")
    (raw(archives_dir) / ".lock").symlink_to(tmp_path / "precious")
    assert intact(archives_dir, mnist)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (raw(archives_dir) / LABELS).is_symlink()


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.write_text("12345")])
def test_what_is_no_lock_keeps_nobody_out(archives_dir, mnist, put):
    put(raw(archives_dir) / ".lock")
    assert intact(archives_dir, mnist)


def test_what_a_killed_process_left_is_swept_and_nothing_else(archives_dir, mnist):
    left = [raw(archives_dir) / name for name in (f".{LABELS}.x1.part", f".{LABELS}.gz.x2.part")]
    kept = [raw(archives_dir) / name for name in (f"{LABELS}.part", ".other.x3.part", f".{LABELS}.x4")]
    for path in [*left, *kept]:
        path.write_bytes(b"half")
    assert intact(archives_dir, mnist)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


# Archives made to harm.


def bomb(size):
    """A gzip archive of very many zeros."""
    packed = io.BytesIO()
    with gzip.open(packed, "wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return packed.getvalue()


LABEL_FILE = struct.pack(">II", 2049, 10) + bytes(range(10))
GZIP = gzip.compress(LABEL_FILE)


@pytest.mark.parametrize("size", range(0, len(GZIP), 3))
def test_truncated_gzip_is_refused(size):
    assert mnist_files._gunzip(GZIP[:size], 1000) in (None, b"")


@pytest.mark.parametrize("archive", [GZIP + b"garbage", GZIP + GZIP[:15], GZIP[:-8] + bytes(8), bomb(1 << 28)])
def test_harmful_gzip_is_refused(archive):
    assert mnist_files._gunzip(archive, 1000) is None


def test_gzip_may_be_as_large_as_its_bound():
    assert mnist_files._gunzip(GZIP, len(LABEL_FILE)) == LABEL_FILE
    assert mnist_files._gunzip(GZIP, len(LABEL_FILE) - 1) is None


def bundle(*members, method=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, contents in members:
            archive.writestr(name, contents)
    return packed.getvalue()


BUNDLE = bundle(("gzip/other.gz", b"other"), ("gzip/labels.gz", GZIP))
HARMFUL_BUNDLES = {
    "empty": bundle(),
    "no zip": b"<html></html>",
    "truncated": BUNDLE[:-30],
    "wrong byte": BUNDLE[:-140] + b"????" + BUNDLE[-136:],
    "another name": bundle(("gzip/other.gz", GZIP)),
    "name twice": bundle(("a/labels.gz", GZIP), ("b/labels.gz", GZIP)),
    "bomb": bundle(("labels.gz", bytes(1 << 26))),
    "method that takes memory": bundle(("labels.gz", GZIP), method=zipfile.ZIP_LZMA),
    "encrypted": bundle(("labels.gz", GZIP)).replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"),
}


@pytest.mark.parametrize("contents", HARMFUL_BUNDLES.values(), ids=HARMFUL_BUNDLES)
def test_harmful_bundle_is_refused(contents):
    assert mnist_files._unzip(contents, "labels.gz", 1000) is None


def test_member_is_found_in_any_folder():
    assert mnist_files._unzip(BUNDLE, "labels.gz", 1000) == GZIP
    assert mnist_files._unzip(bundle(("../../labels.gz", GZIP)), "labels.gz", 1000) == GZIP


@pytest.fixture
def emnist_dir(tmp_path, monkeypatch):
    """A data folder with the bundle of an EMNIST of ten samples, and beside each name one that leads out."""
    monkeypatch.setattr(mnist_files, "_EMNIST_SAMPLES", {"train": 10, "test": 10})
    images = struct.pack(">IIII", 2051, 10, 28, 28) + bytes(7840)
    members = [("../../outside.gz", b"outside")]
    for part in ("train", "test"):
        members.append((f"../../emnist-digits-{part}-images-idx3-ubyte.gz", gzip.compress(images)))
        members.append((f"/emnist-digits-{part}-labels-idx1-ubyte.gz", GZIP))
    packed = bundle(*members)
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(packed).hexdigest())
    folder = tmp_path / "data" / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "gzip.zip").write_bytes(packed)
    return tmp_path / "data"


def load_emnist(data_dir):
    return MNISTFiles(data_dir, "EMNIST", may_download=False).load(train=True)


def test_names_in_the_bundle_do_not_lead_out_of_the_folder(emnist_dir):
    assert load_emnist(emnist_dir)[1].tolist() == list(range(10))
    names = [f"emnist-digits-train-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    assert listing(emnist_dir / "EMNIST" / "raw") == sorted([*names, *(f"{name}.gz" for name in names), "gzip.zip"])
    assert [path.name for path in emnist_dir.parent.iterdir()] == ["data"]


def test_bundle_that_is_not_the_official_one_is_not_opened(emnist_dir, monkeypatch):
    def refuse(*_):
        raise AssertionError

    path = emnist_dir / "EMNIST" / "raw" / "gzip.zip"
    path.write_bytes(bundle(("emnist-digits-train-images-idx3-ubyte.gz", bytes(1 << 26))))
    monkeypatch.setattr(mnist_files.zipfile, "ZipFile", refuse)
    with pytest.raises(DataError, match=r"emnist-digits-train-images-idx3-ubyte is missing"):
        load_emnist(emnist_dir)


@pytest.mark.parametrize("harmful", [GZIP + b"garbage", GZIP[:-3], bomb(1 << 26), lzma.compress(LABEL_FILE), b""])
def test_harmful_archive_of_emnist_is_made_again_from_the_bundle(emnist_dir, harmful):
    (emnist_dir / "EMNIST" / "raw" / "emnist-digits-train-labels-idx1-ubyte.gz").write_bytes(harmful)
    assert load_emnist(emnist_dir)[1].tolist() == list(range(10))


# Files within a bound, and whole.


def test_bounded_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bounded(tmp_path / "file", 4)


@pytest.mark.parametrize("put", IN_ITS_PLACE.values(), ids=IN_ITS_PLACE)
def test_what_is_no_file_leaves_no_descriptor_open(tmp_path, put):
    put(tmp_path / "file")
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(OSError, match=r"\S"):
            read_bounded(tmp_path / "file", 1000)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_only_what_is_half_written_is_swept(tmp_path):
    with whole_file(tmp_path / "file") as file:
        file.write(b"whole")
        half = [path.name for path in tmp_path.iterdir()]
        (tmp_path / "file.part").touch()
        sweep(tmp_path / "other")
        assert len(list(tmp_path.iterdir())) == 2
    assert half[0].startswith(".file.")
    (tmp_path / half[0]).touch()
    sweep(tmp_path / "file")
    assert listing(tmp_path) == ["file", "file.part"]


# Several processes, and one that may not write. Without Lightning and torchvision, whose imports take seconds.

PRELUDE = """
import hashlib, json, os, signal, sys, time, types
from pathlib import Path

arguments = json.loads(sys.argv[2])
package = types.ModuleType("datamodules")
package.__path__ = [sys.argv[1]]
mnist = types.SimpleNamespace(mirrors=arguments["mirrors"], resources=arguments["resources"])
torchvision = types.ModuleType("torchvision")
torchvision.datasets = types.SimpleNamespace(MNIST=mnist)
sys.modules.update(datamodules=package, torchvision=torchvision)
from datamodules.mnist_files import MNISTFiles

def digest(folder):
    found = hashlib.sha256()
    for tensor in MNISTFiles(Path(folder), "MNIST", may_download=True).load(train=False):
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()
"""

START_TOGETHER = """
def start(folder, gate, output):
    process = os.fork()
    if process == 0:
        os.close(gate[1])
        os.read(gate[0], 1)  # until the parent closes the other end
        try:
            os.write(output, (digest(folder) + "\\n").encode())
        except BaseException as error:
            os.write(output, f"{error!r}\\n".encode())
        os._exit(0)
    return process

found = {}
for folder, kill_after in arguments["folders"]:
    gate, output = os.pipe(), os.pipe()
    processes = [start(folder, gate, output[1]) for _ in range(4)]
    for descriptor in (*gate, output[1]):
        os.close(descriptor)
    if kill_after:
        ends = time.monotonic() + 30
        while not any(Path(folder).glob("MNIST/raw/.*.part")) and time.monotonic() < ends:
            time.sleep(0.001)
        time.sleep(kill_after)
        # The one that writes is not known: all but one, so that it is among them more often than not.
        for process in processes[:3]:
            os.kill(process, signal.SIGKILL)
    for process in processes:
        os.waitpid(process, 0)
    with open(output[0]) as lines:
        found[folder] = lines.read().split()
    if kill_after:
        found[folder].append(digest(folder))
print(json.dumps(found))
"""

ONE_WHO_MAY_NOT_WRITE = """
if os.getuid() == 0:
    os.setuid(arguments["user"])
found = {}
for folder in arguments["folders"]:
    try:
        found[folder] = digest(folder)
    except Exception as error:
        found[folder] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def run(script, **arguments):
    package = str(Path(mnist_files.__file__).parent)
    told = json.dumps({**arguments, "resources": datasets.MNIST.resources})
    # Python 3.12 warns of forks beside threads, which NumPy may have.
    quiet = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *quiet, "-c", PRELUDE + script, package, told]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout)


@pytest.fixture(scope="session")
def right(extracted_dir, mnist):
    """The digest of the test set, by torchvision's reader of the official archives."""
    found = hashlib.sha256()
    theirs = datasets.MNIST(str(extracted_dir), train=False)
    for tensor in (theirs.data, theirs.targets.byte()):
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def test_four_processes_may_start_at_once_and_be_killed(tmp_path, extracted_dir, server, right):
    server.contents = {path.name: path.read_bytes() for path in raw(extracted_dir).glob("*.gz")}
    download, extract, killed = (tmp_path / name for name in ("download", "extract", "killed"))
    raw(extract).mkdir(parents=True)
    for name in (IMAGES, LABELS):
        shutil.copy(raw(extracted_dir) / f"{name}.gz", raw(extract))
    folders = [(str(download), 0), (str(extract), 0), (str(killed), 0.02)]
    found = run(START_TOGETHER, folders=folders, mirrors=[server.mirror("good")])
    assert found[str(download)] == [right] * 4
    assert found[str(extract)] == [right] * 4
    assert set(found[str(killed)]) == {right}
    assert len(found[str(killed)]) >= 2  # of the process that was spared, and of the one that started afterwards
    both = [IMAGES, f"{IMAGES}.gz", LABELS, f"{LABELS}.gz"]
    for folder in (download, extract, killed):
        assert listing(raw(folder)) == both
    # Each once in the first folder, none in the second, in the third once or, of the one that was killed, twice.
    counts = [server.requests.count(f"/good/{name}.gz") for name in (IMAGES, LABELS)]
    assert all(count in (2, 3) for count in counts)


@pytest.fixture
def open_folder():
    """A folder that every user may look into, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    shutil.rmtree(folder)


def test_who_may_not_write_is_told_or_reads_what_is_there(open_folder, extracted_dir, right, server):
    server.contents = {path.name: path.read_bytes() for path in raw(extracted_dir).glob("*.gz")}
    archives, empty, closed, locked = (open_folder / name for name in ("archives", "empty", "closed", "locked"))
    for folder in (archives, empty, closed, locked):
        raw(folder).mkdir(parents=True)
    for folder in (archives, closed, locked):
        for archive in raw(extracted_dir).glob("*.gz"):
            shutil.copy(archive, raw(folder))
    (raw(locked) / ".lock").touch(mode=0o000)
    raw(locked).chmod(0o777)
    raw(archives).chmod(0o555)
    raw(empty).chmod(0o555)
    raw(closed).chmod(0o000)
    folders = [str(folder) for folder in (archives, empty, closed, locked)]
    found = run(ONE_WHO_MAY_NOT_WRITE, folders=folders, user=NOBODY, mirrors=[server.mirror("good")])
    assert found[str(archives)] == found[str(locked)] == right
    for folder, state in ((empty, "is missing"), (closed, "cannot be checked")):
        told = found[str(folder)]
        assert told.startswith(f"DataError: {raw(folder) / IMAGES}")
        assert state in told
        assert f"{raw(folder)} cannot be written to" in told
        assert "Permission denied" in told
    assert listing(raw(archives)) == sorted(f"{name}.gz" for name in NAMES)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 16 MB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", *options], check=False, capture_output=True).returncode
    ):
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def mirrored(server, extracted_dir, monkeypatch):
    server.contents = {path.name: path.read_bytes() for path in raw(extracted_dir).glob("*.gz")}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [server.mirror("good")])


@pytest.mark.usefixtures("mirrored")
def test_disk_that_is_full_of_a_download_is_an_error_that_says_so(small_disk):
    (small_disk / "large").write_bytes(bytes(8_000_000))
    with pytest.raises(DataError, match=f"{NAMES[0]} is missing.*cannot be written to .*No space left on device"):
        MNISTFiles(small_disk, "MNIST", may_download=True).load(train=True)
    assert listing(raw(small_disk)) == []


@pytest.mark.usefixtures("mirrored")
def test_disk_too_full_to_extract_costs_the_extracted_file_only(small_disk, mnist):
    images, labels = MNISTFiles(small_disk, "MNIST", may_download=True).load(train=True)
    assert images.shape == (60_000, 28, 28)
    targets = torch.cat([mnist.splits.train.targets, mnist.splits.val.targets])
    assert torch.equal(labels.bincount(), targets.bincount())
    assert listing(raw(small_disk)) == sorted([f"{NAMES[0]}.gz", f"{NAMES[1]}.gz", NAMES[1]])


def test_lock_of_a_dead_process_is_free(archives_dir, mnist):
    script = "import sys, time, filelock; filelock.FileLock(sys.argv[1]).acquire(); print(flush=True); time.sleep(600)"
    lock = str(raw(archives_dir) / ".lock")
    with subprocess.Popen([sys.executable, "-c", script, lock], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert intact(archives_dir, mnist)
