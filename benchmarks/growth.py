"""How time grows with the volume and with the number of writers: a table and a plot, `docs/growth.md` and `growth.png`.

`growth.py [FOLDER] [--rounds N] [--quick]`: FOLDER is where the two are written, `docs/` when it is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from blocks import SHAPE, Writers, ours, raw
from measure import in_turns
from volumes import NETWORKS, SIZE, WINDOW, one_layer, peers_python, prediction, run_file, side, volume

SIZES, WRITERS = (128, 256, 512, 768, 1024), (1, 2, 4)
QUICK_SIZES, QUICK_WRITERS, QUICK_SHAPE = (16, 24), (1, 2), (32, 32, 64)
DOCS = Path(__file__).parents[1] / "docs"

Figures = dict[str, float]

TEXT = """# How time grows

{head}

## With the volume

{windows}³ windows that overlap by half, the identity network, float32, one HDF5 file to another. Seconds of the
evaluate and assemble phases; memory is the anonymous memory that the run takes. MONAI holds volume, sums and weights in
memory: it is measured up to {most}³.

{volumes}

## With the writers

{blocks} MiB in {block}³ blocks into one dataset, by so many processes at once, each at the blocks' own bytes. One raw
sequential write of as many bytes by one process took {raw:.2f} s.

{writers}

![Seconds against the volume, and rate against writers](growth.png)
"""


def of_volumes(folder: Path, sizes: tuple[int, ...], window: int, rounds: int, quick: bool) -> dict[int, Any]:
    found = {}
    small = volume(folder / "small.h5", 2 * window)
    identity = one_layer(NETWORKS["identity"], window)
    warm_up = run_file(folder / "small.json", small, identity, 2 * window, window)
    theirs, copied = peers_python(quick), folder / "copy.h5"
    for size in sizes:
        source = volume(folder / "volume.h5", size)
        path = run_file(folder / "run.json", source, identity, size, window)
        sides = {
            "ours": partial(side, sys.executable, "run_file.py", warm_up, path),
            "copy": partial(side, theirs, "copy_h5py.py", small, source, copied),
        }
        if size <= SIZE and not quick:
            sides["monai"] = partial(side, theirs, "windows_monai.py", small, source, copied, "identity", window)
        found[size] = in_turns(sides, rounds)
        for left in (source, copied, prediction(path)):
            left.unlink()
    return found


def of_writers(folder: Path, counts: tuple[int, ...], shape: tuple[int, ...], size: int, rounds: int) -> dict[int, Any]:
    found = {}
    for count in counts:
        writers = Writers(count, shape, size)
        try:
            sides = {"ours": partial(ours, folder, shape, size, writers), "raw": partial(raw, folder, shape)}
            found[count] = in_turns(sides, rounds)
        finally:
            writers.close()
    return found


def table(heading: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heading, ["---:"] * len(heading), *lines])


def text(volumes: dict[int, Any], writers: dict[int, Any], window: int, block: int, mebibytes: int, rounds: int) -> str:
    def seconds(figures: dict[str, Figures], name: str) -> str:
        return f"{figures[name]['seconds']:.2f}" if name in figures else ""

    by_volume = [
        [
            f"{size}³",
            f"{size**3 * 4 / 2**20:.0f}",
            seconds(each, "ours"),
            f"{size**3 * 4 / 1e6 / each['ours']['seconds']:.0f}",
            f"{each['ours']['MB']:.0f}",
            seconds(each, "copy"),
            seconds(each, "monai"),
            f"{each['monai']['MB']:.0f}" if "monai" in each else "",
        ]
        for size, each in volumes.items()
    ]
    by_writers = [
        [str(count), seconds(each, "ours"), f"{mebibytes * 2**20 / 1e6 / each['ours']['seconds']:.0f}"]
        for count, each in writers.items()
    ]
    cores = len(os.sched_getaffinity(0))
    often = "one round" if rounds == 1 else f"the best of {rounds} rounds"
    return TEXT.format(
        head=f"Measured by `python benchmarks/growth.py` on {cores} cores ({platform.machine()}, {platform.system()}), "
        f"{often}; the files were in the system's cache where there was room.",
        windows=window,
        most=SIZE,
        volumes=table(
            ["volume", "MiB", "seconds", "MB/s", "memory, MB", "plain h5py copy, s", "MONAI, s", "MONAI, MB"], by_volume
        ),
        blocks=mebibytes,
        block=block,
        raw=min(each["raw"]["seconds"] for each in writers.values()),
        writers=table(["writers", "seconds", "MB/s"], by_writers),
    )


def plot(path: Path, volumes: dict[int, Any], writers: dict[int, Any], mebibytes: int) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, label in (("ours", "rml"), ("monai", "MONAI"), ("copy", "plain h5py copy")):
        measured = [size for size, each in volumes.items() if name in each]
        seconds = [volumes[size][name]["seconds"] for size in measured]
        left.plot([size**3 * 4 / 2**20 for size in measured], seconds, "o-", label=label)
    left.set(
        xscale="log", yscale="log", xlabel="volume, MiB", ylabel="seconds", title="identity, windows overlap by half"
    )
    left.legend()
    rates = [mebibytes * 2**20 / 1e6 / each["ours"]["seconds"] for each in writers.values()]
    right.bar([str(count) for count in writers], rates)
    right.set(xlabel="processes that write", ylabel="MB/s", title="blocks into one HDF5 dataset")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything still run?")
    options = parser.parse_args()
    quick, rounds = options.quick, 1 if options.quick else options.rounds
    sizes, counts, window, block = (QUICK_SIZES, QUICK_WRITERS, 8, 16) if quick else (SIZES, WRITERS, WINDOW, 64)
    shape = QUICK_SHAPE if quick else SHAPE
    mebibytes = max(shape[0] * shape[1] * shape[2] * 4 >> 20, 1)
    with tempfile.TemporaryDirectory() as temporary:
        volumes = of_volumes(Path(temporary), sizes, window, rounds, quick)
        writers = of_writers(Path(temporary), counts, shape, block, rounds)
    (options.folder / "growth.md").write_text(text(volumes, writers, window, block, mebibytes, rounds))
    plot(options.folder / "growth.png", volumes, writers, mebibytes)
    print(f"{options.folder / 'growth.md'} and growth.png")


if __name__ == "__main__":
    main()
