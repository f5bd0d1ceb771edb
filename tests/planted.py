"""Packages that look installed: real metadata in a folder, for what asks importlib.metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def plant(folder: Path, versions: Mapping[str, str]) -> Path:
    """A folder that holds the metadata of packages, by name and version, and no code."""
    for name, version in versions.items():
        about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder
