"""Our side: an untracked run of a run file, its phases timed as the flow calls them.

`run_file.py WARM_UP RUN_FILE`: the first is a run on a small volume, for all that is done once in a process; the
second is measured. The seconds are those of its evaluate and assemble phases: reading the volume, the network, blending
and writing. The memory is that of the whole run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from held import measured, tell

from flows.phases import execute
from rml_core.check import check
from rml_core.run import read

COUNTED = ("evaluate", "assemble")


def run(path: str, scheduler: str | None = None) -> float:
    """Seconds of the phases that count."""
    seconds = 0.0

    def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal seconds
        began = time.perf_counter()
        result = function(*arguments)
        if name.startswith(COUNTED):
            seconds += time.perf_counter() - began
        return result

    execute(check(read(Path(path))), timed, scheduler=scheduler)
    return seconds


if __name__ == "__main__":
    warm_up, path, *scheduler = sys.argv[1:]
    address = scheduler[0] if scheduler else None
    run(warm_up, address)
    counted: list[float] = []
    figures = measured(lambda: counted.append(run(path, address)))
    tell({**figures, "whole": figures["seconds"], "seconds": counted[0]})
