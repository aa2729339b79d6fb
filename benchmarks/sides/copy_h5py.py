"""A plain copy with h5py, the least that there is to do: `copy_h5py.py WARM_UP VOLUME OUTPUT`."""

from __future__ import annotations

import sys

import h5py
from held import measured, tell


def run(source: str, output: str) -> None:
    with h5py.File(source) as file, h5py.File(output, "w") as copy:
        copy["windows"] = file["volume"][()][None]


if __name__ == "__main__":
    warm_up, source, output = sys.argv[1:]
    run(warm_up, output)
    tell(measured(lambda: run(source, output)))
