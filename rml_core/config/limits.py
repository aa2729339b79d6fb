"""What a run may hold in memory besides network and batch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rml_core.config.problem import Problem, Refused

VARIABLE = "RML_MEMORY"
# Of the memory of the machine, or of what the process's group may have of it.
SHARE = 4
LEAST = 1 << 20

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
# Where Linux says how much the control group of the process may have: version 2, version 1.
_GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_limit() -> int:
    """Bytes, by `RML_MEMORY`: a number with or without a unit (`500000000`, `2GB`, `512 MiB`, `1.5g`); where it is not
    set, a quarter of the machine's memory, or of what its control group may have.

    Raises:
        Refused: it is no such number, or less than one MiB.
    """
    given = os.environ.get(VARIABLE)
    if given is None or not given.strip():
        return max(_of_machine() // SHARE, LEAST)
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*", given, re.IGNORECASE)
    unit = _UNITS.get(found[2].casefold()) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if size < LEAST:
        raise Refused(
            [Problem(VARIABLE, f'"{given}" does not fit', 'bytes, as "2GB", "512MiB" or 500000000; 1MiB or more')]
        )
    return size


def _of_machine() -> int:
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _GROUPS:
        try:
            sizes.append(int(group.read_text()))
        except (OSError, ValueError):
            continue
    return min(sizes)
