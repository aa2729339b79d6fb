"""Turns at devices: who holds one, and who waits for one, among all processes of this machine.

The truth is the kernel's: a place at a device is a file locked with `flock`, which goes with the process that holds
it, however that ends, and needs no server. What stands in the file is for people to read.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rml_core.config.problem import RunFailed

FOLDER = Path("/tmp/rml-devices")
# Who waits says so at every look; of one that has said nothing for so many seconds (a stopped process) nobody need
# wait for the turn.
SILENT_S = 5.0
MOST_SAID = 4096


def folder() -> Path:
    """Where the locks lie: one folder for all users and containers that share the devices."""
    return Path(os.environ.get("RML_LOCKS") or FOLDER)


@dataclass(frozen=True)
class Holder:
    """Who holds a place at a device. `what`: the run, as it names itself; `since`: seconds of the epoch."""

    device: str
    what: str
    process: int
    since: float


@dataclass
class Held:
    """A place at `device`, until `release`."""

    device: str
    _descriptor: int

    def release(self) -> None:
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


class Turn:
    """A run's wish for one of `devices`, which are names that every process of this machine has for them.

    `limit(device)`: how many runs may be there at a time. Who came first is served first: nobody takes a device that
    somebody before him waits for. `what`: the run, as others are told.
    """

    def __init__(self, devices: Sequence[str], limit: Callable[[str], int], what: str):
        self._devices, self._limit, self._what = tuple(devices), limit, what
        self._ticket: tuple[Path, int] | None = None

    def take(self) -> Held | None:
        """A place, if one is free now; None: none is, and this wish has its place in the queue until `give_up`.

        Raises:
            RunFailed: the locks cannot be made.
        """
        try:
            return self._take()
        except OSError as error:
            raise RunFailed(
                f"devices cannot be locked in {folder()}: {error.strerror or error}; set RML_LOCKS to a folder that "
                "all who share the devices can write to"
            ) from error

    def _take(self) -> Held | None:
        place = folder()
        _make(place)
        with _alone(place / "deciding") as decides:
            if not decides:
                return None
            before = self._before(place)
            for device in self._devices:
                held = None if device in before else self._place_at(device)
                if held is not None:
                    self.give_up()
                    return held
            self._queue(place)
        return None

    def holders(self) -> list[Holder]:
        """Who holds the devices that are wished for."""
        found = []
        for device in self._devices:
            for _, descriptor in _places(device):
                try:
                    if not _locks(descriptor):
                        found.append(_read(descriptor, device))
                finally:
                    os.close(descriptor)
        return found

    def give_up(self) -> None:
        """Leave the queue."""
        if self._ticket is not None:
            path, descriptor = self._ticket
            self._ticket = None
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _place_at(self, device: str) -> Held | None:
        """A place at `device` below its limit. Places beyond it count: others may have been allowed more."""
        free: list[int] = []
        taken = 0
        limit = self._limit(device)
        numbers = set()
        try:
            for number, descriptor in _places(device):
                numbers.add(number)
                if _locks(descriptor):
                    free.append(descriptor)
                else:
                    taken += 1
                    os.close(descriptor)
            if taken >= limit:
                return None
            if not free:
                number = next(number for number in range(taken + 1) if number not in numbers)
                descriptor = _opened(_place(device, number))
                free.append(descriptor)
                if not _locks(descriptor):
                    return None
            kept = free.pop(0)
        finally:
            for descriptor in free:
                os.close(descriptor)
        text = json.dumps({"what": self._what, "process": os.getpid(), "since": time.time()})
        os.ftruncate(kept, 0)
        os.pwrite(kept, text.encode()[:MOST_SAID], 0)
        return Held(device, kept)

    def _queue(self, place: Path) -> None:
        """Be in the queue, and say that this process is still there."""
        if self._ticket is not None:
            os.utime(self._ticket[0])
            return
        path = place / f"waits.{time.time_ns():020d}.{uuid.uuid4().hex[:8]}"
        descriptor = _opened(path)
        _locks(descriptor)
        os.pwrite(descriptor, json.dumps(self._devices).encode(), 0)
        self._ticket = path, descriptor

    def _before(self, place: Path) -> set[str]:
        """The devices that others wait for who came before; what is left of those that were killed is removed."""
        own = self._ticket[0].name if self._ticket is not None else None
        wanted: set[str] = set()
        for path in sorted(place.glob("waits.*")):
            if own is not None and path.name >= own:
                break
            with suppress(OSError, ValueError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    if _locks(descriptor):
                        path.unlink(missing_ok=True)
                    elif time.time() - os.fstat(descriptor).st_mtime < SILENT_S:
                        wanted |= set(json.loads(os.pread(descriptor, MOST_SAID, 0)))
                finally:
                    os.close(descriptor)
        return wanted


def _make(place: Path) -> None:
    if not place.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        # As /tmp itself: everybody may make locks, and remove his own.
        with suppress(PermissionError):
            place.chmod(stat.S_ISVTX | 0o777)


def _place(device: str, number: int) -> Path:
    return folder() / f"{device}.{number}"


def _places(device: str) -> Iterator[tuple[int, int]]:
    """The places at `device` that there have been, each opened: (number, descriptor)."""
    for path in sorted(folder().glob(f"{device}.*")):
        number = path.name.rpartition(".")[2]
        if number.isdecimal():
            with suppress(FileNotFoundError):
                yield int(number), _opened(path)


def _opened(path: Path) -> int:
    """`path`, opened or made, for everybody to lock."""
    while True:
        try:
            # Not with O_CREAT: in a folder for everybody Linux may refuse that for the file of another user.
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        os.fchmod(descriptor, 0o666)
        return descriptor


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else decides at this moment: who takes a place, and who is before whom."""
    descriptor = _opened(path)
    try:
        yield _locks(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int, device: str) -> Holder:
    try:
        said: dict[str, Any] = json.loads(os.pread(descriptor, MOST_SAID, 0))
        return Holder(device, str(said["what"]), int(said["process"]), float(said["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(device, "another run", 0, os.fstat(descriptor).st_mtime)
