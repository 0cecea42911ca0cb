"""Weights that come with a list of what they are."""

from zoo.pretrained.manifest import ManifestEntry, ManifestError, read_manifest, read_verified, write_manifest
from zoo.pretrained.shipped import find_shipped, load_shipped, shipped

__all__ = [
    "ManifestEntry",
    "ManifestError",
    "find_shipped",
    "load_shipped",
    "read_manifest",
    "read_verified",
    "shipped",
    "write_manifest",
]
