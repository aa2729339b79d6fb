"""Paths as the run file says them, and the files they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from rml_core.config.names import wrong
from rml_core.config.problem import shown


def _local(path: str) -> str:
    if "://" in path:
        raise wrong(f"{shown(path)}: URLs are not available yet", "a path of this machine's files")
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(_local)]


def resolve(path: str, base: Path | str) -> Path:
    """`path` with `~` and environment variables expanded; a relative one is against `base`."""
    return Path(base, os.path.expandvars(os.path.expanduser(path)))


def folder_of(file: Path) -> Path:
    """The folder that relative paths in `file` are against, without `..` and links."""
    return file.absolute().parent.resolve()
