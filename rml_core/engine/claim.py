"""Two runs that write to the same place would mix their results: the second is refused."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rml_core.config.problem import Problem, Refused


@contextmanager
def claimed(places: Iterable[tuple[str, Path]]) -> Iterator[None]:
    """Hold `places` (JSON path, existing file or folder) as long as the context lasts.

    The lock is the kernel's (`flock`), on the file or folder itself: it leaves nothing behind and goes with
    the process, however that ends.

    Raises:
        Refused: another run holds one of them.
    """
    held: dict[tuple[int, int], int] = {}
    problems: list[Problem] = []
    try:
        for where, place in places:
            descriptor = os.open(place, os.O_RDONLY)
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
