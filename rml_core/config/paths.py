"""Paths as the run file says them, and the files they mean."""

from __future__ import annotations

import os
from pathlib import Path


def resolve(path: str, base: Path | str) -> Path:
    """`path` with `~` and environment variables expanded; a relative one is against `base`."""
    return Path(base, os.path.expandvars(os.path.expanduser(path)))


def folder_of(file: Path) -> Path:
    """The folder that relative paths in `file` are against, without `..` and links."""
    return file.absolute().parent.resolve()
