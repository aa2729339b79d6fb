"""Files that appear under their name only when whole: they are made beside it, by the name of the process."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from pathlib import Path


def unfinished(path: Path, what: str = "") -> Path:
    """Where this process makes `path`; `what`: for something that goes with it, or that tells it from another one."""
    return path.with_name(f".{path.name}{what}.{os.getpid()}")


def another(path: Path) -> Path:
    """Where this process makes `path` this time, and never again: who still writes to an earlier one does no harm, and
    nobody can have put a link there that leads elsewhere."""
    return unfinished(path, f".{uuid.uuid4().hex[:12]}")


def leftovers(path: Path) -> list[Path]:
    """What processes that are gone have left of `path`: they were killed while they wrote it."""
    found = []
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        try:
            os.kill(int(leftover.suffix[1:]), 0)
        except ProcessLookupError:
            found.append(leftover)
        except (ValueError, OSError):
            continue
    return found


def remove_leftovers(path: Path) -> None:
    for leftover in leftovers(path):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
