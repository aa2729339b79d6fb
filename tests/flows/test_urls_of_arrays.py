"""Samples that lie in arrays behind URLs give the bits of the same arrays on this machine."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

Rml = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["web", pytest.param("memory", marks=pytest.mark.slow)])
def there(request: pytest.FixtureRequest, tmp_path: Path, in_memory: Any, web: Any) -> Callable[[], str]:
    """Puts the test's folder behind a URL, and says it."""

    def put() -> str:
        if request.param == "web":
            return f"http://127.0.0.1:{web.server_port}"
        for path in tmp_path.rglob("*"):
            if path.is_file():
                in_memory.put_file(str(path), f"/store/{path.relative_to(tmp_path)}")
        return "memory://store"

    return put


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Ten inputs (2, 6, 5) and a number for each."""
    inputs = np.random.default_rng(0).normal(size=(10, 2, 6, 5)).astype(np.float32)
    return inputs, inputs.mean((1, 2, 3))[:, None]


def npy(folder: Path) -> None:
    (folder / "in").mkdir()
    for index, array in enumerate(arrays()[0]):
        np.save(folder / "in" / f"{index}.npy", array)
    np.savez(folder / "out.npz", **{str(index): array for index, array in enumerate(arrays()[1])})


def hdf5(folder: Path) -> None:
    with h5py.File(folder / "all.h5", "w") as file:
        for index, (one, other) in enumerate(zip(*arrays(), strict=True)):
            file[f"in/{index}"], file[f"out/{index}"] = one, other


def zarr_store(folder: Path) -> None:
    store = zarr.open_group(str(folder / "all.zarr"), mode="w")
    for index, (one, other) in enumerate(zip(*arrays(), strict=True)):
        store[f"in/{index}"], store[f"out/{index}"] = one, other


def mnist(folder: Path) -> None:
    (folder / "idx").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (10, 6, 5), np.uint8)
    images = struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes()
    labels = struct.pack(">II", 0x801, 10) + bytes([0, 1] * 5)
    for part in ("train", "t10k"):
        (folder / "idx" / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / "idx" / f"{part}-labels-idx1-ubyte").write_bytes(labels)


KINDS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "numpy": (npy, "numpy", "in", "out.npz"),
    "hdf5": (hdf5, "hdf5", "all.h5:/in", "all.h5:/out"),
    "zarr": (zarr_store, "zarr", "all.zarr/in", "all.zarr/out"),
    "mnist": (mnist, "mnist", "idx", "idx"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays(
    kind: str,
    there: Callable[[], str],
    run_file: Callable[..., Path],
    rml: Rml,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RML_THREADS", "4")
    make, type_, inputs, targets = KINDS[kind]
    make(tmp_path)
    url = there()
    preload = url.startswith("http")
    last = "log_softmax" if kind == "mnist" else "linear"
    logs, said = [], []
    for base in (url, str(tmp_path)):
        section = {
            "outfile": f"{tmp_path}/out{len(logs)}.txt",
            "layers": [
                {"class_name": "GlobalAveragePooling2D", "config": {}},
                {"class_name": "Dense", "config": {"units": 2 if kind == "mnist" else 1, "activation": last}},
            ],
            "data": {
                "type": type_,
                "input_path": f"{base}/{inputs}",
                "target_path": f"{base}/{targets}",
                "test_input_path": f"{base}/{inputs}",
                "test_target_path": f"{base}/{targets}",
                "batch_size": 4,
                "preload": preload,
            },
            "optimizer": {"type": "SGD"},
            "loss": {"function": "NLL" if kind == "mnist" else "MSE"},
        }
        status, _, errors = rml("run", run_file({"neural_network": section}), "--untracked")
        assert status == 0
        said.append(errors)
        logs.append(np.loadtxt(f"{tmp_path}/out{len(logs)}_train.txt")[:, 3:])
    assert logs[0].shape == (3, 2)
    assert logs[0].tolist() == logs[1].tolist()
    assert said[0] == said[1]
