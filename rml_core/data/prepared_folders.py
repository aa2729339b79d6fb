"""The folders of prepared samples: which a run uses, when each was last used, and how one is removed.

Who uses a folder holds a shared lock of its manifest, who removes it an exclusive one: kernel locks, which go with
their process. A folder that is removed is first renamed, so that nobody sees half of one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rml_core.data.building import built_beside

MANIFEST = "manifest.json"


class Gone(Exception):
    """The folder was removed before it could be held."""


@dataclass(frozen=True)
class Folder:
    """Prepared samples on disk. `size`: bytes they take there. `used`: when a run last used them, in seconds of the
    epoch."""

    path: Path
    size: int
    used: float


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Nobody removes `folder`, whatever it is called meanwhile, as long as the context lasts; its time of last use is
    now.

    Raises:
        Gone: it is not there (any more).
    """
    manifest = folder / MANIFEST
    try:
        descriptor = os.open(manifest, os.O_RDONLY)
    except FileNotFoundError:
        raise Gone from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_still(manifest, descriptor):
            raise Gone
        _used_now(descriptor)
        try:
            yield
        finally:
            _used_now(descriptor)
    finally:
        os.close(descriptor)


def folders(under: Path) -> list[Folder]:
    """The prepared folders below `under`, those first that were not used for longest."""
    found = []
    with suppress(FileNotFoundError):
        for path in under.iterdir():
            if path.name.startswith(".") or not path.is_dir():
                continue
            with suppress(FileNotFoundError):
                manifest = path / MANIFEST
                used = (manifest if manifest.exists() else path).stat().st_mtime
                found.append(Folder(path, _size(path), used))
    return sorted(found, key=lambda folder: (folder.used, folder.path))


def is_used(folder: Folder) -> bool:
    """Whether a run uses it now."""
    try:
        descriptor = os.open(folder.path / MANIFEST, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove(folder: Folder) -> bool:
    """Remove it, unless a run uses it, or has used it since it was listed. Raises `OSError`: it may not be removed."""
    manifest = folder.path / MANIFEST
    try:
        descriptor = os.open(manifest, os.O_RDWR)
    except FileNotFoundError:
        # Damaged: no run can use it.
        return _put_away(folder.path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(manifest, descriptor) or os.fstat(descriptor).st_mtime > folder.used:
            return False
        return _put_away(folder.path)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _put_away(path: Path) -> bool:
    with built_beside(path) as away:
        try:
            os.rename(path, away / "removed")
        except FileNotFoundError:
            return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` is the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _used_now(manifest: int) -> None:
    # Of another user's samples the time stays as it is.
    with suppress(OSError):
        os.utime(manifest)


def _size(path: Path) -> int:
    """Bytes on disk: a file may be longer than what is stored of it."""
    return sum(each.stat().st_blocks * 512 for each in path.rglob("*") if each.is_file())
