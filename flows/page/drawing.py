"""Draws a run's curves in a process of its own, at the lowest priority: a thread that draws keeps Python, which trains,
waiting for a second."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rml_core.engine.gallery import Gallery

# Seconds after which a drawing is given up.
PATIENCE = 120.0
LOWEST = 19


def drawn(history: list[dict[str, Any]], gallery: Gallery, classes: tuple[str, ...], source: str) -> bytes:
    """What `flows.report.draw` gives, a PNG.

    Raises:
        RuntimeError: its process has failed.
        subprocess.TimeoutExpired: it takes too long.
    """
    made = subprocess.run(
        # -P: what lies in the working directory, beside somebody's run file, is no code of ours.
        [sys.executable, "-P", "-m", __name__],
        input=pickle.dumps((history, gallery, classes, source)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        # Ctrl-C is for the run.
        start_new_session=True,
    )
    if made.returncode:
        lines = made.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"the curves are not drawn: {lines[-1] if lines else f'exit status {made.returncode}'}")
    return made.stdout


def main() -> None:
    os.nice(LOWEST)
    from flows.report import draw

    sys.stdout.buffer.write(draw(*pickle.load(sys.stdin.buffer)))


if __name__ == "__main__":
    main()
