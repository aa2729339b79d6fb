"""The process of one run: Prefect's engine, in a group of its own, so that whoever tells it reaches its helpers too.

Prefect's own way takes two processes one after the other, the first of which looks for code to fetch: there is none.
"""

from __future__ import annotations

import io
import os
import runpy
import sys


class Outlet(io.FileIO):
    """An output whose reader may go away: what is written from then on is lost, and nobody is told.

    The reader is the worker. A run that outlives it must not die of a line that it prints.
    """

    def write(self, content: object) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except BrokenPipeError:
            return len(memoryview(content).cast("B"))  # type: ignore[arg-type]


def main() -> None:
    os.setsid()
    for name, number in (("stdout", 1), ("stderr", 2)):
        outlet = io.BufferedWriter(Outlet(number, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(outlet, encoding="utf-8", errors="replace", line_buffering=True))
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
