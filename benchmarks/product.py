"""rml as its users start it: the command, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measure import after_first_epoch

RML = Path(sys.executable).with_name("rml")


def rml(*arguments: str | Path, env: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Wall-clock seconds of `rml ...` and what it printed; its message as a RuntimeError where it fails."""
    began = time.perf_counter()
    finished = subprocess.run(
        [RML, *arguments], env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if finished.returncode:
        command = " ".join(map(str, ("rml", *arguments)))
        raise RuntimeError(f"{command} ended with {finished.returncode}: {finished.stderr or finished.stdout}")
    return seconds, finished.stdout


def training_seconds(neural_network: Mapping[str, Any]) -> float:
    """What a run spends on training after its first epoch, by its own log. Data paths must be absolute."""
    return training_log(neural_network, after_first_epoch)


def training_log(neural_network: Mapping[str, Any], read: Callable[[Path], float]) -> float:
    """What `read` finds in the training log of a run. Paths must be absolute."""
    with tempfile.TemporaryDirectory() as folder:
        run_file = Path(folder, "run.json")
        run_file.write_text(json.dumps({"neural_network": {**neural_network, "outfile": "out.txt"}}))
        rml("run", run_file, "--untracked")
        return read(Path(folder, "out_train.txt"))
