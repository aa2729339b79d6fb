"""A 3D U-Net over a volume, cut, evaluated, blended and written, against the network alone on slices in memory."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from measure import Row, in_turns, main
from networks import unet3d_json
from volumes import line, run_file, side, volume

SIZE, WINDOW, BOUND = 160, 64, 1.05


def rows(rounds: int, quick: bool) -> list[Row]:
    size, window = (32, 16) if quick else (SIZE, WINDOW)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small, source = volume(folder / "small.h5", window), volume(folder / "volume.h5", size)
        warm_up, path = (
            run_file(folder / f"{name}.json", each, unet3d_json(window), extent, window)
            for name, each, extent in (("small", small, window), ("run", source, size))
        )
        windows = line(size, window) ** 3
        found = in_turns(
            {
                "ours": partial(side, sys.executable, "run_file.py", warm_up, path),
                "alone": partial(side, sys.executable, "inference.py", path, windows),
            },
            rounds,
        )
        seconds = found["ours"]["seconds"], found["alone"]["seconds"]
        return [Row(f"3D U-Net, {windows} windows of {window}³, of inference alone", *seconds, BOUND)]


if __name__ == "__main__":
    main(rows)
