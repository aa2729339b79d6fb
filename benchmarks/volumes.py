"""From a volume in HDF5 to its prediction in HDF5, through overlapping windows: time and memory.

Each side runs in a process of its own, does the same on a small volume first (all that is done once in a process),
and is then measured: ours from the first slice to the assembled file under its name; MONAI reads, infers with
`sliding_window_inference` and writes; h5py copies. The volumes lie in the system's cache. Memory is anonymous memory
above what the process had before, pages of mapped files are not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from measure import Row, in_turns, main

HERE = Path(__file__).parent
SIDES = HERE / "sides"
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"

SIZE, WINDOW = 512, 64
OF_MONAI, OF_COPY, MEAN_OF_MONAI, MOST_MB = 0.45, 1.6, 0.8, 250.0

NETWORKS: dict[str, dict[str, Any]] = {
    "identity": {"class_name": "Activation", "config": {"name": "network", "activation": "linear"}},
    "mean": {
        "class_name": "AveragePooling3D",
        "config": {"name": "network", "pool_size": 3, "strides": 1, "padding": "same"},
    },
}


def volume(path: Path, size: int) -> Path:
    """A contiguous dataset `volume` of size³ random numbers, float32."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("volume", (size, size, size), np.float32)
        for plane in range(size):
            dataset[plane] = generator.standard_normal((size, size), dtype=np.float32)
    return path


def line(size: int, window: int) -> int:
    """How many windows that overlap by half lie side by side."""
    return -(-(size - window) // (window // 2)) + 1


def prediction(path: Path) -> Path:
    """What the run file `path` assembles."""
    return path.with_name(f"{path.stem}_prediction.h5")


def one_layer(network: dict[str, Any], window: int) -> list[dict[str, Any]]:
    inputs = {"name": "input", "batch_input_shape": [None, window, window, window, 1]}
    return [{"class_name": "InputLayer", "config": inputs}, network]


def run_file(path: Path, source: Path, layers: list[dict[str, Any]], size: int, window: int) -> Path:
    """A run that takes `source` through a network in windows that overlap by half; a batch is a line of them."""
    data = {
        "type": "hdf5",
        "test_input_path": str(source),
        "test_batch_size": line(size, window),
        "slicers": [{"name": "windows", "sizes": [window] * 3, "strides": [window // 2] * 3}],
        "hdf5_outfile": str(prediction(path)),
    }
    path.write_text(json.dumps({"neural_network": {"data": data, "layers": layers}}))
    return path


def side(python: Path | str, program: str, *arguments: Path | str | int) -> dict[str, float]:
    """The figures that a side's process prints."""
    command = [str(python), str(SIDES / program), *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{program} ended with {finished.returncode}: {finished.stderr or finished.stdout}")
    return json.loads(finished.stdout.splitlines()[-1])


def peers_python(quick: bool) -> Path | str:
    """The peers' own environment; to try that everything runs, this one, which has them too."""
    if not quick and not PEERS.exists():
        raise SystemExit(f"{PEERS} is not there: make peers")
    return sys.executable if quick else PEERS


def rows(rounds: int, quick: bool) -> list[Row]:
    size, window = (24, 8) if quick else (SIZE, WINDOW)
    theirs = peers_python(quick)
    measured: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small, source = volume(folder / "small.h5", 2 * window), volume(folder / "volume.h5", size)
        copied = folder / "copy.h5"
        # MONAI takes seconds to import: once is enough to see that everything runs.
        for name, network in list(NETWORKS.items())[: 1 if quick else None]:
            layers = one_layer(network, window)
            warm_up = run_file(folder / f"small_{name}.json", small, layers, 2 * window, window)
            ours = run_file(folder / f"{name}.json", source, layers, size, window)
            monai = partial(side, theirs, "windows_monai.py", small, source, copied, name, window)
            sides = {"ours": partial(side, sys.executable, "run_file.py", warm_up, ours), "monai": monai}
            if name == "identity":
                sides["copy"] = partial(side, theirs, "copy_h5py.py", small, source, copied)
                sides["dask"] = partial(side, theirs, "windows_dask.py", small, source, copied, window)
            found = in_turns(sides, rounds)
            what = f"{size}³ to HDF5, {name}"
            bounds = {"monai": OF_MONAI if name == "identity" else MEAN_OF_MONAI, "copy": OF_COPY, "dask": 1.0}
            for peer in list(sides)[1:]:
                pair = found["ours"]["seconds"], found[peer]["seconds"]
                measured.append(Row(f"{what}, of {PEER_NAMES[peer]}", *pair, bounds[peer]))
            measured.append(Row(f"{what}, memory", found["ours"]["MB"], None, MOST_MB, "MB"))
    return measured


PEER_NAMES = {"monai": "MONAI", "copy": "a plain copy", "dask": "dask's map_overlap"}

if __name__ == "__main__":
    main(rows)
