"""Ready models, out of whatever may hold one: a name, a directory, a checkpoint."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from zoo.checkpointing import require_local_file
from zoo.leaves import load_leaf
from zoo.pretrained.directory import open_directory
from zoo.pretrained.forms import PretrainedError
from zoo.pretrained.shipped import FOLDER, find_shipped, open_shipped, shipped
from zoo.pretrained.source import Pretrained
from zoo.tasks import Task

_WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth")


def load_pretrained(source: str | PathLike[str], cls: type[Task] | None = None) -> Task:
    """A ready model, in evaluation mode, on the CPU.

    Nothing is downloaded, nothing is unpickled, and no code is imported because a file names it. The weights are
    compared with the checksum that was written when they were saved.

    Args:
        source: a name out of :func:`zoo.list_pretrained`, a directory that :func:`zoo.pretrained.save_pretrained` wrote
            or that was downloaded from the Hub, or a checkpoint. A plain name is that of shipped weights where there
            are such, whatever lies in the current directory, which is meant by ``"./name"``.
        cls: the class, if the model is none of the zoo's: a subclass of :class:`zoo.Task`.

    Returns:
        The model; its ``temperature`` is the one that was fitted, if one was.

    Raises:
        CheckpointError: there is no such source, its files are damaged or were changed, or it holds a model of another
            class; names the file.

    Example:
        >>> import torch
        >>> load_pretrained("mnist_cnn").predict_step(torch.zeros(1, 1, 28, 28)).probabilities.shape
        torch.Size([1, 10])
    """
    if cls is not None and not (isinstance(cls, type) and issubclass(cls, Task)):
        raise TypeError(f"cls must be a subclass of zoo.Task, got {cls!r:.100}")
    found = open_pretrained(source)
    if isinstance(found, Pretrained):
        return found.make(found.task_class() if cls is None else cls).eval()
    task: Task = load_leaf(found) if cls is None else cls.load_from_checkpoint(found)
    return task.eval()


def open_pretrained(source: str | PathLike[str], folder: Path = FOLDER) -> Pretrained | Path:
    """The model that a name or a directory stands for, not made yet; of a checkpoint its path.

    Args:
        source: see :func:`load_pretrained`.
        folder: of the shipped weights.

    Raises:
        CheckpointError: there is none.
    """
    text = fspath(source)
    is_name = isinstance(source, str) and bool(text) and Path(text).name == text
    if is_name and text in shipped(folder):
        return open_shipped(text, folder)
    local = Path(text)
    try:
        is_directory, exists = bool(text) and local.is_dir(), bool(text) and local.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        is_directory = exists = False
    if is_directory:
        return open_directory(local)
    if is_name and not exists and local.suffix not in {".ckpt", *_WEIGHTS_SUFFIXES}:
        find_shipped(text, folder)  # says which there are
    if not exists and local.suffix == "" and text.count("/") == 1 and not text.startswith((".", "/", "~")):
        raise PretrainedError(
            f"there is no directory {text[:300]}; nothing is downloaded: for a repository of the Hub give what "
            f"huggingface_hub.snapshot_download({text[:300]!r}) returns"
        )
    found = require_local_file(source)
    if found.suffix in _WEIGHTS_SUFFIXES:
        raise PretrainedError(
            f"{found} holds weights and not which model they are of: give the directory that save_pretrained wrote, or "
            "the file to the model itself, as weights=..."
        )
    return found
