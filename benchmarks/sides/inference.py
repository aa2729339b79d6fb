"""The network of a run file alone, over slices that are in memory: `inference.py RUN_FILE COUNT`.

The network and the batches are those of the run; nothing is cut, kept or written. Its threads are torch's own, and the
allocator keeps what is freed, as in a run.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from held import measured, tell

from rml_core.check import check
from rml_core.engine.memory import keep_what_is_freed
from rml_core.layers.build import build
from rml_core.run import read

if __name__ == "__main__":
    path, count = sys.argv[1:]
    checked = check(read(Path(path)))
    keep_what_is_freed()
    network = build(checked.network, checked.run.file.seed).eval()
    shape = checked.network.input_shape
    sample = [shape[-1], *shape[:-1]] if shape[-1] == 1 else list(shape)
    slices = torch.randn(int(count), *sample, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def run() -> float:
        began = time.perf_counter()
        for batch in slices.split(checked.run.file.data.test_batch_size):
            network(batch)
        return time.perf_counter() - began

    network(slices[:1])
    tell(measured(run))
