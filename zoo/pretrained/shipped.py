"""The weights that come with the zoo, by name."""

from __future__ import annotations

from pathlib import Path

from zoo.checkpointing.safetensors_files import parse_safetensors
from zoo.leaves import LEAVES
from zoo.pretrained.manifest import ManifestEntry, ManifestError, read_manifest, read_verified
from zoo.tasks import Task
from zoo.tasks.restoring import restore

FOLDER = Path(__file__).parent / "weights"
MANIFEST = "manifest.json"


def shipped(folder: Path = FOLDER) -> dict[str, ManifestEntry]:
    """What there is, by name; nothing where there is no manifest.

    Raises:
        ManifestError: the manifest cannot be read.
    """
    manifest = folder / MANIFEST
    return read_manifest(manifest) if manifest.is_file() else {}


def find_shipped(name: str, folder: Path = FOLDER) -> ManifestEntry:
    """What is known of the weights of a name.

    Raises:
        ManifestError: there are none; lists those that there are.
    """
    entries = shipped(folder)
    if name not in entries:
        there = f"there are {', '.join(entries)}" if entries else "none are shipped with this version"
        raise ManifestError(f"there are no pretrained weights {name!a:.100}: {there}")
    return entries[name]


def load_shipped(name: str, folder: Path = FOLDER) -> Task:
    """The model of a name with its weights, on the CPU.

    Raises:
        ManifestError: there is none, or its file is not the one that was shipped.
        CheckpointError: the weights are not those of the class and the arguments in the manifest.
    """
    entry = find_shipped(name, folder)
    if entry.class_name not in LEAVES:
        raise ManifestError(f"{name} is a {entry.class_name}, which this version of the zoo does not have")
    weights = parse_safetensors(read_verified(folder, entry), entry.file)
    if not any(key.startswith("network.") for key in weights):  # those of the network alone
        weights = {f"network.{key}": value for key, value in weights.items()}
    leaf = LEAVES[entry.class_name]
    model: Task = restore(leaf, {leaf.CHECKPOINT_HYPER_PARAMS_KEY: entry.arguments, "state_dict": weights}, name, {})
    return model
