"""Weights that come with a list of what they are."""

from zoo.pretrained.manifest import ManifestEntry, ManifestError, read_manifest, read_verified, write_manifest

__all__ = ["ManifestEntry", "ManifestError", "read_manifest", "read_verified", "write_manifest"]
