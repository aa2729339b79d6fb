"""How long DenseNet201 (Huang et al., arXiv:1608.06993) takes from Keras's own JSON to a module with initial weights.

The file is read, every shape worked out and every weight drawn; torch is imported already. Keras writes the file in a
process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measure import Row, compare, main

BOUND = 2.0
WRITE = """
import pathlib, sys
from keras import applications
model = applications.{name}(weights=None, input_shape=({size}, {size}, 3))
pathlib.Path(sys.argv[1]).write_text(model.to_json())
"""


def write(path: Path, quick: bool) -> None:
    script = WRITE.format(name="MobileNet" if quick else "DenseNet201", size=32 if quick else 224)
    environment = {**os.environ, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", script, path], env=environment, check=True, stderr=subprocess.DEVNULL)


def product(path: Path) -> float:
    from rml_core.layers.build import build
    from rml_core.layers.graph import infer
    from rml_core.layers.keras_json import read

    began = time.perf_counter()
    build(infer(read(str(path), "layers", path.parent), None), seed=0)
    return time.perf_counter() - began


def rows(rounds: int, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "network.json")
        write(path, quick)
        return [compare("DenseNet201 from its JSON", partial(product, path), None, BOUND, rounds)]


if __name__ == "__main__":
    main(rows)
