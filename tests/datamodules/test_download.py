import hashlib
import tempfile
import threading
import time
from functools import partial

import pytest

from datamodules import download as module
from datamodules.errors import DataError

CONTENTS = bytes(range(256)) * 1000  # several chunks, and less than the buffers of a socket
MD5 = hashlib.md5(CONTENTS).hexdigest()
BAD_WAYS = [
    "wrong",
    "cut",
    "missing",
    "silent",
    "trickle",
    "endless_without_length",
    "promises_too_much",
    "promises_more",
    "round_and_round",
    "redirect_to_file",
    "redirect_to_ftp",
    "endless_redirect",
    "endless_header",
    "no_http",
]
download = partial(module.download, max_size=len(CONTENTS))


def listing(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def urls(server):
    """A function: the url of the file for each of some ways to serve it."""
    server.contents["file.gz"] = CONTENTS
    return lambda *manners: [server.mirror(manner) + "file.gz" for manner in manners]


def test_contents_are_those_of_the_server(urls, tmp_path):
    download(urls("good"), tmp_path / "target.gz", MD5)
    assert (tmp_path / "target.gz").read_bytes() == CONTENTS
    assert listing(tmp_path) == ["target.gz"]


def test_others_may_read_the_file(urls, tmp_path):
    download(urls("good"), tmp_path / "target.gz", MD5)
    assert (tmp_path / "target.gz").stat().st_mode & 0o777 == 0o644


def test_redirect_is_followed(urls, tmp_path):
    download(urls("redirect_to_good"), tmp_path / "target.gz", MD5)
    assert (tmp_path / "target.gz").read_bytes() == CONTENTS


def test_old_file_is_replaced(urls, tmp_path):
    (tmp_path / "target.gz").write_bytes(b"damaged")
    download(urls("good"), tmp_path / "target.gz", MD5)
    assert (tmp_path / "target.gz").read_bytes() == CONTENTS


@pytest.mark.parametrize("manner", BAD_WAYS)
def test_bad_server_is_named_and_leaves_nothing(urls, tmp_path, manner):
    (url,) = urls(manner)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"target\.gz could not be downloaded") as caught:
        download([url], tmp_path / "target.gz", MD5, patience=0.5)
    assert time.monotonic() - began < 30
    assert url in str(caught.value)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("wrong", f"not the official ones .*instead of {MD5}"),
        ("missing", "404"),
        ("silent", "no answer|timed out"),
        ("trickle", "hardly any progress|no answer"),
        ("endless_without_length", "sends more than 256,000 bytes"),
        ("promises_too_much", "sends more than 256,000 bytes"),
        ("promises_more", "not the official ones|no answer|timed out"),
        ("round_and_round", "infinite loop"),
        ("redirect_to_file", "[Rr]edirection to .*file:///etc/hostname.* is not allowed"),
        ("redirect_to_ftp", "redirection to ftp://127.0.0.1/file.gz is not allowed"),
        ("endless_redirect", "infinite loop"),
        ("endless_header", "got more than"),
        ("no_http", "hello"),
    ],
)
def test_error_says_what_went_wrong(urls, tmp_path, manner, reason):
    with pytest.raises(DataError, match=reason):
        download(urls(manner), tmp_path / "target.gz", MD5, patience=0.5)


@pytest.mark.parametrize("manner", BAD_WAYS)
def test_old_file_outlives_a_bad_server(urls, tmp_path, manner):
    (tmp_path / "target.gz").write_bytes(b"old")
    with pytest.raises(DataError):
        download(urls(manner), tmp_path / "target.gz", MD5, patience=0.2)
    assert (tmp_path / "target.gz").read_bytes() == b"old"
    assert listing(tmp_path) == ["target.gz"]


@pytest.mark.parametrize("manner", ["wrong", "cut", "missing"])
def test_next_mirror_is_asked(urls, server, tmp_path, manner):
    download(urls(manner, "good"), tmp_path / "target.gz", MD5)
    assert (tmp_path / "target.gz").read_bytes() == CONTENTS
    assert server.requests == [f"/{manner}/file.gz", "/good/file.gz"]


def test_mirror_that_works_is_the_last_one_asked(urls, server, tmp_path):
    download(urls("good", "wrong"), tmp_path / "target.gz", MD5)
    assert server.requests == ["/good/file.gz"]


def test_error_names_every_mirror(urls, tmp_path):
    with pytest.raises(DataError) as caught:
        download(urls("missing", "wrong"), tmp_path / "target.gz", MD5)
    assert all(url in str(caught.value) for url in urls("missing", "wrong"))


def test_refused_connection_is_an_error_at_once(closed_mirror, tmp_path):
    with pytest.raises(DataError, match=closed_mirror):
        download([closed_mirror + "file.gz"], tmp_path / "target.gz", MD5, patience=60)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("url", ["no url", "http://", "gopher://127.0.0.1/file", "http://127.0.0.1:port/file"])
def test_address_that_is_none_is_an_error(url, tmp_path):
    with pytest.raises(DataError, match=r"target\.gz could not be downloaded"):
        download([url], tmp_path / "target.gz", MD5, patience=5)


def test_no_address_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"target\.gz could not be downloaded"):
        download([], tmp_path / "target.gz", MD5)


def test_lookup_that_hangs_comes_back(monkeypatch, tmp_path):
    """A name that is looked up for ever is beyond any time-out of a socket."""
    found = threading.Event()
    monkeypatch.setattr(module.urllib.request.OpenerDirector, "open", lambda *_, **__: found.wait(60) and None)
    began = time.monotonic()
    with pytest.raises(DataError, match="no answer"):
        download(["http://host.invalid/file.gz"], tmp_path / "target.gz", MD5, patience=0.3)
    assert time.monotonic() - began < 30
    found.set()


def test_folder_that_cannot_be_written_to_leaves_no_thread_behind(urls, server, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    server.contents["file.gz"] = bytes(16 * 1024 * 1024)  # more than the queue between the threads holds
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="Read-only"):
        download(urls("good"), tmp_path / "target.gz", MD5)
    ends = time.monotonic() + 30
    while (left := reading(before)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert left == []


def reading(before):
    """Threads of the download, not of the server."""
    return [thread for thread in set(threading.enumerate()) - before if "(_read)" in thread.name]


def test_patience_begins_again_with_progress_and_not_with_a_trickle(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    deadline = module._Deadline(8)
    for _ in range(10):
        now[0] += 7
        deadline.progress(64 * 1024)
        assert deadline.remaining() == 8
    for _ in range(7):
        now[0] += 1
        deadline.progress(1000)
        assert not deadline.passed()
    now[0] += 1
    deadline.progress(1000)
    assert deadline.passed()
