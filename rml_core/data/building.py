"""Folders that are being built, beside where they will be: gone when who builds them is."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# What other machines have left is taken for left after so many seconds.
DAY = 86400.0


@contextlib.contextmanager
def built_beside(folder: Path) -> Iterator[Path]:
    """A new folder that is to become `folder`; it is gone at the end of the context, unless it was renamed.

    What processes that were killed have left beside it is removed first: a volume takes its room on disk before it is
    decoded. Raises `OSError`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    while True:
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-{_host()}-", dir=folder.parent))
        try:
            descriptor = os.open(building, os.O_RDONLY)
        except FileNotFoundError:
            # Somebody swept between the two.
            continue
        try:
            # The kernel lets go of it with the process, however that ends.
            if _locks(descriptor) and building.exists():
                yield building
                return
        finally:
            shutil.rmtree(building, ignore_errors=True)
            os.close(descriptor)


def sweep(under: Path) -> None:
    """Remove what is being built no more: on this machine it is locked by nobody."""
    for left in under.glob(".*-*-*-*"):
        with contextlib.suppress(OSError):
            if left.name.split("-")[-2] != _host():
                if time.time() - left.stat().st_mtime > DAY:
                    shutil.rmtree(left, ignore_errors=True)
                continue
            descriptor = os.open(left, os.O_RDONLY)
            try:
                if _locks(descriptor):
                    # Under the lock: who has made it a moment ago has not locked it yet, and sees that it is gone.
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _host() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
