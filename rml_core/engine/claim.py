"""Two runs that write to the same place would mix their results: the second is refused."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rml_core.config import remote
from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


@contextmanager
def claimed(
    places: Iterable[tuple[str, AnyPath]],
    replaced: Iterable[tuple[str, AnyPath]] = (),
    wait: Callable[[Refused], None] | None = None,
) -> Iterator[None]:
    """Hold `places` (JSON path, existing file or folder) as long as the context lasts, and files to be `replaced`,
    which need not be there.

    The lock is the kernel's (`flock`), on the file or folder itself: it leaves nothing behind and goes with
    the process, however that ends. Behind a URL nothing can be locked, and what is replaced takes its lock along: a
    file of this machine stands for such a place, and runs on other machines are not seen. That file goes with the
    context; of a process that was killed it stays, and holds nothing.

    `wait`: called, again and again, as long as another run holds one of them; it returns after a moment, or raises.

    Raises:
        Refused: another run holds one of them.
    """
    wanted = [(where, place, not isinstance(place, Path)) for where, place in places]
    wanted += [(where, place, True) for where, place in replaced]
    held: dict[tuple[int, int], int] = {}
    standing: list[Path] = []
    try:
        while problems := _take(wanted, held, standing):
            # Two that wait for each other would wait for ever.
            _let_go(held, standing)
            if wait is None:
                raise Refused(problems)
            wait(Refused(problems))
        yield
    finally:
        _let_go(held, standing)


def _take(
    wanted: list[tuple[str, AnyPath, bool]], held: dict[tuple[int, int], int], standing: list[Path]
) -> list[Problem]:
    """Lock what is `wanted`: what was locked is `held`, and `standing` what was made for it; what others hold."""
    problems: list[Problem] = []
    for where, place, stands in wanted:
        locked = _standing_for(place) if stands or not isinstance(place, Path) else place
        try:
            if _hold(locked, held, stands) and stands:
                standing.append(locked)
        except BlockingIOError:
            remedy = "wait until it has ended, or give this run a place of its own"
            problems.append(Problem(where, f"another run is writing to {place}", remedy=remedy))
    return problems


def _let_go(held: dict[tuple[int, int], int], standing: list[Path]) -> None:
    # As long as they are locked: whoever has opened one meanwhile sees that it is gone.
    for path in standing:
        path.unlink(missing_ok=True)
    for descriptor in held.values():
        os.close(descriptor)
    standing.clear()
    held.clear()


def _hold(path: Path, held: dict[tuple[int, int], int], stands: bool) -> bool:
    """Lock `path`, and add it to what is `held`; False: it was there. `stands`: it is made, and its holder removes it.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    patient = stands
    while True:
        descriptor = os.open(path, os.O_RDONLY | (os.O_CREAT if stands else 0), 0o666)
        identity = _identity(os.fstat(descriptor))
        if identity in held:
            # One folder may serve for two things; the kernel would refuse it to us a second time.
            os.close(descriptor)
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if not patient:
                raise
            # Whoever cleans up holds for a moment what nobody else does.
            patient = False
            time.sleep(0.05)
            continue
        try:
            there = not stands or _identity(os.stat(path)) == identity
        except FileNotFoundError:
            there = False
        if there:
            held[identity] = descriptor
            return True
        # It was removed between the two: the lock is on what nobody else will find.
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _standing_for(place: AnyPath) -> Path:
    text = os.path.realpath(place) if isinstance(place, Path) else remote.text_of(place).rstrip("/")
    name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return Path(tempfile.gettempdir(), f"rml-{os.getuid()}-{name}.claim")
