"""Two runs that write to the same place would mix their results: the second is refused."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rml_core.config import remote
from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


@contextmanager
def claimed(places: Iterable[tuple[str, AnyPath]], replaced: Iterable[tuple[str, AnyPath]] = ()) -> Iterator[None]:
    """Hold `places` (JSON path, existing file or folder) as long as the context lasts, and files to be `replaced`,
    which need not be there.

    The lock is the kernel's (`flock`), on the file or folder itself: it leaves nothing behind and goes with
    the process, however that ends. Behind a URL nothing can be locked, and what is replaced takes its lock along: a
    file of this machine stands for such a place, and runs on other machines are not seen.

    Raises:
        Refused: another run holds one of them.
    """
    held: dict[tuple[int, int], int] = {}
    problems: list[Problem] = []
    try:
        wanted = [(where, place, place if isinstance(place, Path) else _standing_for(place)) for where, place in places]
        wanted += [(where, place, _standing_for(place)) for where, place in replaced]
        for where, place, locked in wanted:
            descriptor = os.open(locked, os.O_RDONLY)
            status = os.fstat(descriptor)
            identity = status.st_dev, status.st_ino
            if identity in held:
                # One folder may serve for two things; the kernel would refuse it to us a second time.
                os.close(descriptor)
                continue
            held[identity] = descriptor
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problems.append(
                    Problem(
                        where,
                        f"another run is writing to {place}",
                        remedy="wait until it has ended, or give this run a place of its own",
                    )
                )
        if problems:
            raise Refused(problems)
        yield
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _standing_for(place: AnyPath) -> Path:
    text = os.path.realpath(place) if isinstance(place, Path) else remote.text_of(place).rstrip("/")
    name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    path = Path(tempfile.gettempdir(), f"rml-{os.getuid()}-{name}.claim")
    path.touch()
    return path
