"""The weights that come with the zoo, by name."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from zoo.checkpointing.safetensors_files import parse_safetensors
from zoo.pretrained.manifest import ManifestEntry, ManifestError, read_manifest, read_verified
from zoo.pretrained.source import Pretrained, nearest
from zoo.pretrained.storage import expand

FOLDER = Path(__file__).parent
MANIFEST = "manifest.json"


def shipped(folder: Path = FOLDER) -> dict[str, ManifestEntry]:
    """What there is, by name; nothing where there is no manifest.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    manifest = folder / MANIFEST
    return read_manifest(manifest) if manifest.is_file() else {}


def list_pretrained(pattern: str = "*") -> list[str]:
    """The names of the weights that come with the zoo, in alphabetical order; see :func:`load_pretrained`.

    Args:
        pattern: only those that it describes, with ``*`` and ``?`` as in the names of files, such as ``"mnist_l*"``.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    return sorted(fnmatch.filter(shipped(), pattern))


def find_shipped(name: str, folder: Path = FOLDER) -> ManifestEntry:
    """What is known of the weights of a name.

    Raises:
        ManifestError: there are none; lists those that there are.
    """
    entries = shipped(folder)
    if name not in entries:
        there = f"there are {', '.join(entries)}" if entries else "none are shipped with this version"
        raise ManifestError(f"there are no pretrained weights {name!a:.100}: {there}{nearest(name, entries)}")
    return entries[name]


def open_shipped(name: str, folder: Path = FOLDER) -> Pretrained:
    """The weights of a name, verified, and what is known of them.

    Raises:
        ManifestError: there are none, or their file is not the one that was shipped.
        CheckpointError: the file is no safetensors file.
    """
    entry = find_shipped(name, folder)
    weights = expand(parse_safetensors(read_verified(folder, entry), entry.file), entry.file)
    return Pretrained(name, weights, entry)
