"""Whether there is a W&B server that takes a run."""

from __future__ import annotations

import http.client
import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from zoo.wandb_service import default_server


def find_server(*, asked: bool, seconds: float) -> str | None:
    """The address of the server, if there are credentials for it and it answers at all.

    Args:
        asked: whether somebody wants the run to be online.
        seconds: how long to wait for an answer.

    Raises:
        ConnectionError: it does not; or W&B was ``asked`` to go online, and there are no credentials.
    """
    # W&B reads its variables once a process; a later change counts here all the same.
    server = os.environ.get("WANDB_BASE_URL") or default_server()
    if not _has_credentials(server):
        if asked:
            raise ConnectionError("it was asked to, but has no credentials (wandb login)")
        return None
    try:
        with urllib.request.urlopen(server, timeout=seconds):
            return server
    except urllib.error.HTTPError:
        return server  # an answer, whatever it says
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"the server {server} does not answer: {first_line(error)}") from error


def _has_credentials(server: str) -> bool:
    """Whether W&B would find a key without asking for one: in the environment, or in the netrc file."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            entries = netrc.netrc(file)
        except (OSError, netrc.NetrcParseError):
            continue
        hosts = (urllib.parse.urlsplit(server).netloc, "api.wandb.ai")
        if any(host in entries.hosts for host in hosts):
            return True
    return False


def first_line(error: BaseException) -> str:
    """The line of an error that says what is wrong."""
    lines = str(error).strip().splitlines()
    if not lines or lines[0] == "<no message>":
        return type(error).__name__
    if "validation error" in lines[0]:  # pydantic's, which names the setting and what is wrong with it below
        return " ".join(map(str.strip, lines[:3]))
    return lines[0]
