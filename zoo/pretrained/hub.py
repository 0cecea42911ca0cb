"""Models for the Hugging Face Hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from zoo.pretrained.directory import FILES, open_directory, save_pretrained
from zoo.pretrained.forms import PretrainedError
from zoo.tasks import Task
from zoo.wording import with_article

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPO_ID = re.compile(f"(?:{_NAME}/)?{_NAME}")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]+|(?<=[Bb]earer )\S+")


class HubError(PretrainedError):
    """A model that could not be sent to the Hub; says why, and never with what credentials."""


class HubClient(Protocol):
    """What is used of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, private: bool | None, repo_type: str, exist_ok: bool) -> Any:
        """Make a repository, unless it is there."""

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: str | Path,
        commit_message: str,
        repo_type: str,
        revision: str | None,
        create_pr: bool,
        allow_patterns: list[str],
    ) -> Any:
        """Send files as one commit."""


def push_to_hub(
    model: Task | str | PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str = "Upload the model",
    revision: str | None = None,
    create_pr: bool = False,
    datamodule: object | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
    license: str | None = None,  # noqa: A002  # what the Hub calls it
    tags: Sequence[str] = (),
    client: HubClient | None = None,
) -> str:
    """Send a model to the Hugging Face Hub: configuration, weights and card, and no other file.

    Needs ``pip install -e ".[hub]"``. Credentials are those of ``hf auth login`` or of ``HF_TOKEN``; none is taken,
    kept or shown here.

    Args:
        model: a task, or a directory that :func:`zoo.pretrained.save_pretrained` wrote, which is verified first.
        repo_id: ``"owner/name"``; made if need be.
        private: whether a repository that is made is private; ``None`` is the owner's default.
        commit_message: of the commit.
        revision: the branch.
        create_pr: whether to open a pull request instead of committing to the branch.
        datamodule: see :func:`zoo.pretrained.save_pretrained`, as for those below; for a task.
        metrics: see there.
        description: see there.
        license: see there.
        tags: see there.
        client: takes the place of ``huggingface_hub.HfApi()``.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        TypeError: the model is neither.
        HubError: ``huggingface_hub`` is not installed, the name is none, or the Hub did not take it.
        CheckpointError: see :func:`zoo.pretrained.save_pretrained`, and of a directory: it holds no whole model.
    """
    if not isinstance(repo_id, str) or not _REPO_ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id:
        raise HubError(f"repo_id must be 'owner/name', of letters, digits, '.', '_' and '-', got {repo_id!a:.100}")
    card: dict[str, Any] = {
        "datamodule": datamodule, "metrics": metrics, "description": description, "license": license, "tags": tags
    }  # fmt: skip
    if not isinstance(model, Task | str | PathLike):
        raise TypeError(f"model must be a zoo.Task or a directory, got {with_article(type(model).__name__)}")
    if not isinstance(model, Task):
        given = [name for name, value in card.items() if value]
        if given:
            raise HubError(f"{given[0]} is for a task: the directory {model} has its card already")
        open_directory(model)
        return _push(Path(model), repo_id, private, commit_message, revision, create_pr, client)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, Path(temporary) / repo_id.rpartition("/")[2], **card)
        return _push(folder, repo_id, private, commit_message, revision, create_pr, client)


def _push(
    folder: Path,
    repo_id: str,
    private: bool | None,
    commit_message: str,
    revision: str | None,
    create_pr: bool,
    client: HubClient | None,
) -> str:
    api = _client() if client is None else client
    try:
        api.create_repo(repo_id, private=private, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            repo_type="model",
            revision=revision,
            create_pr=create_pr,
            allow_patterns=list(FILES),
        )
    except Exception as error:  # whatever the client, its transport, and the Hub come up with
        # Not chained: a request that failed may have its headers, and with them the token, in its traceback.
        told = _TOKEN.sub("[token]", " ".join(str(error).split()))[:500]
        raise HubError(f"{repo_id} was not sent to the Hub: {type(error).__name__}: {told}") from None
    return str(getattr(commit, "pr_url", None) or getattr(commit, "commit_url", None) or commit)


def _client() -> HubClient:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise HubError('sending models to the Hub needs huggingface_hub: pip install -e ".[hub]"') from error
    api: HubClient = HfApi()
    return api
