"""What the tests of the data modules share: the real MNIST archives, and a server on loopback."""

import os
import shutil
import socket
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules import MNISTDataModule

_ARCHIVES = Path(__file__).parents[2] / "data" / "MNIST" / "raw"


def _copy_archives(data_dir):
    archives = sorted(_ARCHIVES.glob("*-ubyte.gz"))
    if len(archives) != 4:
        pytest.skip("the four archives of MNIST are not in data/MNIST/raw of this checkout")
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in archives:
        shutil.copy(archive, raw)  # never a link: tests damage these files
        (raw / archive.name).chmod(0o644)


@pytest.fixture
def archives_dir(tmp_path):
    """A data folder of this test's own that holds MNIST's archives and nothing else."""
    data_dir = tmp_path / "data"
    _copy_archives(data_dir)
    yield data_dir
    shutil.rmtree(data_dir)  # pytest keeps the folders of three runs


@pytest.fixture(scope="session")
def extracted_dir(tmp_path_factory):
    """A data folder with MNIST's archives; files are extracted into it, and nothing in it may be damaged."""
    data_dir = tmp_path_factory.mktemp("mnist")
    _copy_archives(data_dir)
    yield data_dir
    shutil.rmtree(data_dir)


@pytest.fixture(scope="session")
def mnist(extracted_dir):
    """Real MNIST, set up with seed 0; only to be looked at."""
    data = MNISTDataModule(str(extracted_dir), source="local", seed=0)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def lock_folder(monkeypatch):
    """A function that forbids to write into a folder; simulated where permissions do not stop us, as for root."""
    locked = []

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    def lock(folder):
        folder.chmod(0o555)
        locked.append(folder)
        if os.access(folder, os.W_OK):
            monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
            monkeypatch.setattr(tempfile, "mkstemp", refuse)

    yield lock
    for folder in locked:
        folder.chmod(0o755)


_ANSWERS_OF_THEIR_OWN = {
    "endless_without_length",
    "promises_too_much",
    "promises_more",
    "redirect_to_good",
    "redirect_to_file",
    "redirect_to_ftp",
    "round_and_round",
    "endless_redirect",
    "endless_header",
    "no_http",
}


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # a client that stops reading does not keep the server from closing

    def do_GET(self):
        self.server.requests.append(self.path)
        _, manner, name = self.path.split("/")
        contents = self.server.contents[name]
        if manner == "missing":
            self.send_error(404)
        elif manner == "silent":
            self.server.closing.wait()
        elif manner in _ANSWERS_OF_THEIR_OWN:
            getattr(self, manner)(name)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(contents)))
            self.end_headers()
            getattr(self, manner)(contents)

    def good(self, contents):
        self.wfile.write(contents)

    def wrong(self, contents):
        self.wfile.write(contents[:-1] + bytes([contents[-1] ^ 1]))

    def cut(self, contents):
        self.wfile.write(contents[: len(contents) // 2])

    def trickle(self, contents):
        for start in range(len(contents)):
            self.wfile.write(contents[start : start + 1])
            if self.server.closing.wait(0.02):
                return

    def endless(self, contents):
        while not self.server.closing.is_set():
            self.wfile.write(contents)

    def endless_without_length(self, name):
        self.send_response(200)
        self.end_headers()
        self.endless(self.server.contents[name])

    def promises_too_much(self, name):
        self.send_response(200)
        self.send_header("Content-Length", str(10**15))
        self.end_headers()
        self.endless(self.server.contents[name])

    def promises_more(self, name):
        self.send_response(200)
        self.send_header("Content-Length", str(10**15))
        self.end_headers()
        self.wrong(self.server.contents[name])

    def redirect(self, url):
        self.send_response(302)
        self.send_header("Location", url)
        self.end_headers()

    def redirect_to_good(self, name):
        self.redirect(self.server.mirror("good") + name)

    def redirect_to_file(self, name):
        self.redirect("file:///etc/hostname")

    def redirect_to_ftp(self, name):
        self.redirect(f"ftp://127.0.0.1/{name}")

    def round_and_round(self, name):
        self.redirect(self.path)

    def endless_redirect(self, name):
        self.redirect(self.path)
        self.endless(self.server.contents[name])

    def endless_header(self, name):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        self.endless(bytes([120]) * 10_000)

    def no_http(self, name):
        self.wfile.write(b"hello\r\n")

    def log_message(self, *_):
        pass


class MirrorServer(ThreadingHTTPServer):
    """Serves ``contents`` by name; the folder in the url says how, as a method of the handler does."""

    daemon_threads = False  # closing waits for them

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contents = {}
        self.requests = []
        self.closing = threading.Event()

    def mirror(self, manner):
        return f"http://127.0.0.1:{self.server_port}/{manner}/"

    def handle_error(self, *_):
        """A client that hangs up is nothing to report."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with MirrorServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def closed_mirror(monkeypatch):
    """An address at which nothing listens."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}/"
