"""Models for the Hub, sent to a stand-in for its client; nothing leaves the machine."""

import importlib
import inspect
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo import LinearRegressor, load_pretrained, push_to_hub, save_pretrained
from zoo.pretrained import HubError, PretrainedError
from zoo.pretrained.directory import FILES

TOKEN = "hf_" + "aBcD" * 8


class Client:
    """Keeps what it is asked for, and the files as the Hub would."""

    def __init__(self, keep, failure=None):
        self.keep, self.failure, self.calls = keep, failure, []

    def create_repo(self, repo_id, **options):
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        if self.failure is not None:
            raise self.failure

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", options))
        self.keep.mkdir()
        for path in Path(options["folder_path"]).iterdir():
            if path.name in options["allow_patterns"]:
                (self.keep / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(commit_url=f"https://hub.invalid/{options['repo_id']}/commit/1", pr_url=None)


@pytest.fixture
def client(tmp_path):
    return Client(tmp_path / "hub")


def test_a_task_arrives_as_a_model_that_can_be_loaded(client):
    task = LinearRegressor(in_features=3)
    url = push_to_hub(task, "owner/line-1.0", private=True, license="mit", metrics={"test/mse": 0.25}, client=client)
    assert url == "https://hub.invalid/owner/line-1.0/commit/1"
    assert [name for name, _ in client.calls] == ["create_repo", "upload_folder"]
    assert client.calls[0][1] == {"repo_id": "owner/line-1.0", "private": True, "repo_type": "model", "exist_ok": True}
    assert {path.name for path in client.keep.iterdir()} == set(FILES)
    again = load_pretrained(client.keep)
    assert again.hparams == task.hparams
    card = (client.keep / "README.md").read_text()
    assert "license: mit" in card
    assert "# line-1.0" in card
    assert "| mse | 0.2500 |" in card
    assert not Path(client.calls[1][1]["folder_path"]).exists()  # what was only on its way is gone


def test_of_a_directory_only_the_model_is_sent_and_only_if_it_is_whole(client, tmp_path):
    folder = save_pretrained(LinearRegressor(), tmp_path / "model")
    (folder / ".env").write_text(f"HF_TOKEN={TOKEN}")
    (folder / "best.ckpt").write_bytes(b"")
    push_to_hub(folder, "owner/line", revision="next", create_pr=True, commit_message="Better", client=client)
    assert {path.name for path in client.keep.iterdir()} == set(FILES)
    sent = client.calls[1][1]
    assert (sent["revision"], sent["create_pr"], sent["commit_message"]) == ("next", True, "Better")
    assert sent["folder_path"] == folder
    with pytest.raises(HubError, match=r"license is for a task: the directory .* has its card already"):
        push_to_hub(folder, "owner/line", license="mit", client=client)
    (folder / "model.safetensors").write_bytes(b"")
    calls = len(client.calls)
    with pytest.raises(PretrainedError, match="is not the file that was saved"):
        push_to_hub(folder, "owner/line", client=client)
    assert len(client.calls) == calls


@pytest.mark.parametrize(
    "repo_id", ["", "a/b/c", "../x", "owner/", "/name", "owner/na me", "-a/b", "a/b.", "o/a--b", "o/a..b", 3, "x" * 300]
)
def test_a_name_that_is_none_is_refused_before_anything_is_written(repo_id, client):
    with pytest.raises(HubError, match="repo_id must be 'owner/name'"):
        push_to_hub(LinearRegressor(), repo_id, client=client)
    assert client.calls == []


def test_what_is_no_model_is_refused(client):
    with pytest.raises(TypeError, match=r"model must be a zoo\.Task or a directory, got an int"):
        push_to_hub(3, "owner/line", client=client)


def test_no_credential_is_in_an_error_a_log_or_a_file(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    failure = RuntimeError(f"401 for https://hub.invalid\nAuthorization: Bearer {TOKEN}, and Bearer opaque+secret/1=")
    client = Client(tmp_path / "hub", failure)
    with pytest.raises(HubError, match="owner/line was not sent to the Hub: RuntimeError: 401") as refused:
        push_to_hub(LinearRegressor(), "owner/line", client=client)
    for said in (str(refused.value), caplog.text, *capfd.readouterr()):
        assert TOKEN not in said
        assert "opaque" not in said
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert "token" not in str(client.calls).lower()
    folder = save_pretrained(LinearRegressor(), tmp_path / "model")
    assert not any(TOKEN.encode() in path.read_bytes() for path in folder.iterdir())


def test_without_the_library_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r'needs huggingface_hub: pip install -e "\.\[hub\]"'):
        push_to_hub(LinearRegressor(), "owner/line")


def test_the_calls_are_those_that_the_real_client_takes(client):
    hub = pytest.importorskip("huggingface_hub")
    push_to_hub(LinearRegressor(), "owner/line", client=client)
    for name, options in client.calls:
        inspect.signature(getattr(hub.HfApi, name)).bind(None, **options)


def test_names_that_are_taken_here_are_taken_there():
    hub = pytest.importorskip("huggingface_hub")
    module = importlib.import_module("zoo.pretrained.hub")
    for repo_id in ("owner/name", "name", "o/a.b_c-d", "O1/" + "x" * 90):
        assert module._REPO_ID.fullmatch(repo_id)
        hub.utils.validate_repo_id(repo_id)
