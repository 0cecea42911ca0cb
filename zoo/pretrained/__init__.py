"""Weights that come with the zoo, and models in directories, with all that is known of them."""

from zoo.pretrained.directory import save_pretrained
from zoo.pretrained.forms import PretrainedError
from zoo.pretrained.hub import HubError, push_to_hub
from zoo.pretrained.loading import load_pretrained
from zoo.pretrained.manifest import ManifestEntry, ManifestError, read_manifest, read_verified, write_manifest
from zoo.pretrained.record import ModelRecord
from zoo.pretrained.shipped import find_shipped, list_pretrained, shipped

__all__ = [
    "HubError",
    "ManifestEntry",
    "ManifestError",
    "ModelRecord",
    "PretrainedError",
    "find_shipped",
    "list_pretrained",
    "load_pretrained",
    "push_to_hub",
    "read_manifest",
    "read_verified",
    "save_pretrained",
    "shipped",
    "write_manifest",
]
