"""MONAI's side: an HDF5 dataset is read, `sliding_window_inference` goes over it, an HDF5 file is written.

`windows_monai.py WARM_UP VOLUME OUTPUT NETWORK WINDOW`: the first volume is a small one, for all that is done once in
a process; the second is measured. NETWORK: identity or mean.
"""

from __future__ import annotations

import sys

import h5py
import torch
from held import measured, tell
from monai.inferers import sliding_window_inference

NETWORKS = {"identity": torch.nn.Identity, "mean": lambda: torch.nn.AvgPool3d(3, 1, 1, count_include_pad=False)}
# Windows at once: 1, 2, 4 and 8 were tried on 2 cores, with little between them.
AT_ONCE = 4


@torch.inference_mode()
def run(source: str, output: str, network: torch.nn.Module, window: int) -> None:
    with h5py.File(source) as file:
        volume = torch.from_numpy(file["volume"][()])
    sizes = (window, window, window)
    found = sliding_window_inference(volume[None, None], sizes, AT_ONCE, network, overlap=0.5, mode="constant")
    with h5py.File(output, "w") as file:
        file["windows"] = found[0].numpy()


if __name__ == "__main__":
    warm_up, source, output, name, window = sys.argv[1:]
    network = NETWORKS[name]()
    run(warm_up, output, network, int(window))
    tell(measured(lambda: run(source, output, network, int(window))))
