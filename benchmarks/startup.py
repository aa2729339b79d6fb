"""How long the commands take to start, and a run until its first batch is done.

The run is `data_samples/digits.json` cut down to one epoch of one batch that holds all training images; the
baseline, `bare_digits.py`, does the same. Both are timed from the start of the process to its end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measure import Row, compare, main
from product import rml

HERE = Path(__file__).parent
DIGITS = HERE.parent / "data_samples" / "digits.json"
IMAGES = DIGITS.with_suffix("") / "train"
HELP, VALIDATE, FIRST_BATCH = 0.3, 1.0, 1.2


def baseline() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, HERE / "bare_digits.py"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def product(run_file: Path) -> float:
    seconds, _ = rml("run", run_file, "--untracked")
    return seconds


def one_batch() -> dict[str, object]:
    """The digits' run file without evaluation and checkpoints, all images one batch."""
    network = json.loads(DIGITS.read_text())["neural_network"]
    data = {key: value for key, value in network["data"].items() if not key.startswith("test_")}
    data |= {"input_path": str(IMAGES), "batch_size": len(list(IMAGES.glob("*/*.png")))}
    kept = {key: network[key] for key in ("layers", "optimizer", "loss", "seed")}
    return {"neural_network": {**kept, "data": data, "num_epochs": 1, "outfile": "out.txt"}}


def rows(rounds: int, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        run_file = Path(temporary, "run.json")
        run_file.write_text(json.dumps(one_batch()))
        return [
            compare("rml --help", lambda: rml("--help")[0], None, HELP, rounds),
            compare("rml validate", lambda: rml("validate", DIGITS)[0], None, VALIDATE, rounds),
            compare("rml run --untracked, first batch", partial(product, run_file), baseline, FIRST_BATCH, rounds),
        ]


if __name__ == "__main__":
    main(rows)
