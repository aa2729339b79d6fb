"""Small real files and run files for the tests of whole runs."""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

# The networks of the tests are small: threads, of which other tests may want some too, cost more than they give.
# Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each test has a cache of its own, in which matplotlib would look through all fonts again: half a second of a core.
os.environ.setdefault("MPLCONFIGDIR", os.path.join(tempfile.gettempdir(), f"rml-tests-{os.getuid()}-matplotlib"))


# Where the tests themselves were started to ignore Ctrl-C, they and the commands they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Services that many tests share, the one with the longest tests first.
SHARED = ("service", "campaign", "guarded")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: a file's tests are run by one process, and so are those of one service, wherever they
    are. Services come last: one that nobody uses any more takes 6 % of a core until its process ends."""
    last: dict[pytest.Item, int] = {}
    for item in items:
        of = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        last[item] = 1 + SHARED.index(of[0]) if of else 0
        item.add_marker(pytest.mark.xdist_group(of[0] if of else item.nodeid.partition("::")[0]))
    items.sort(key=last.__getitem__)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Where pytest-xdist groups nothing, each process would put up each service, and nobody would say so."""
    if node.config.option.dist == "loadgroup" and any("@" not in name for name in ids):
        pytest.exit("this pytest-xdist does not group the tests of this pytest: see pyproject.toml", 4)


_number = itertools.count()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared samples of a test are its own. The folder is made when it is needed: pytest's own way to a new one
    looks at all that are there, and there are thousands of tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "caches" / str(next(_number))))


def write_pictures(folder: Path, each: int, seed: int, size: int = 12) -> None:
    """Two classes: `dark` has its bright square on the left, `light` on the right."""
    random = np.random.default_rng(seed)
    for label, column in (("left", 1), ("right", 7)):
        (folder / label).mkdir(parents=True)
        for index in range(each):
            picture = random.integers(0, 80, (size, size), dtype=np.uint8)
            row = int(random.integers(1, 7))
            picture[row : row + 4, column : column + 4] = 200
            cv2.imwrite(str(folder / label / f"img{index}.png"), picture)


LAYERS: list[dict[str, Any]] = [
    {
        "class_name": "Conv2D",
        "config": {"name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
    },
    {"class_name": "MaxPooling2D", "config": {"name": "pool", "pool_size": 2}},
    {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.2}},
    {"class_name": "Flatten", "config": {"name": "flat"}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
]

CLASSIFICATION: dict[str, Any] = {
    "outfile": "out.txt",
    "num_epochs": 3,
    "layers": LAYERS,
    "data": {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "train",
        "test_input_path": "test",
        "test_output_path": "predictions",
        "batch_size": 4,
        "test_batch_size": 8,
        "grayscale": True,
        "preload": True,
        "transforms": [{"random_horizontal_flip": 0.1}, {"normalize": {"mean": 0.3, "std": 0.5}}],
    },
    "optimizer": {
        "type": "Adam",
        "learning_rate": 0.01,
        "lr_scheduler": {"type": "Exponential", "gamma": 0.9},
    },
    "loss": {"function": "NLL"},
    "checkpoints": {"save": "checkpoints"},
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` (24 pictures) and `test` (10), two classes each. Not to be written to."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder / "train", 12, seed=1)
    write_pictures(folder / "test", 5, seed=2)
    return folder


@pytest.fixture
def classification(pictures: Path) -> dict[str, Any]:
    """A run file that trains on `pictures`; what it writes goes below its own folder."""
    section = copy.deepcopy(CLASSIFICATION)
    section["data"]["input_path"] = str(pictures / "train")
    section["data"]["test_input_path"] = str(pictures / "test")
    return {"neural_network": section}


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run file into the test's own folder."""

    def write(mapping: object, name: str = "run.json") -> Path:
        path = tmp_path / name
        path.write_text(mapping if isinstance(mapping, str) else json.dumps(mapping))
        return path

    return write


@pytest.fixture
def rml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command `rml` in this process: (exit status, standard output, standard error)."""

    def call(*arguments: object, command: str = "main") -> tuple[int, str, str]:
        from flows import cli

        monkeypatch.setattr(sys, "argv", ["rml", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            getattr(cli, command)()
        output, errors = capsys.readouterr()
        return int(ended.value.code or 0), output, errors

    return call


class _Server(ThreadingHTTPServer):
    """`asked`: what was asked of it. `parts`: it gives parts of files, as most servers do and Python's does not.
    `status`: what it answers instead of a file, as 403."""

    daemon_threads = True
    asked: list[str]
    parts = True
    status: int | None = None


class _Handler(SimpleHTTPRequestHandler):
    server: _Server

    def log_message(self, *arguments: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")

    def end_headers(self) -> None:
        if self.server.parts:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def send_head(self) -> Any:
        if self.server.status is not None:
            self.send_error(self.server.status)
            return None
        path, wanted = Path(self.translate_path(self.path)), self.headers.get("Range")
        if wanted is None or not self.server.parts or not path.is_file():
            return super().send_head()
        first, last = wanted.removeprefix("bytes=").split("-")
        content = path.read_bytes()
        part = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.end_headers()
        return io.BytesIO(part)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[_Server]:
    """A web server for the test's own folder, at `http://127.0.0.1:<web.server_port>`."""
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path))) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def in_memory() -> Iterator[Any]:
    """fsspec's `memory://`, empty."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def _save_npy(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", array)


def _save_images(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path / f"{name}.png"), array.transpose(1, 2, 0))


def _save_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def _save_zarr(version: int) -> Callable[[Path, dict[str, np.ndarray]], None]:
    def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
        import zarr

        group = zarr.open_group(str(path), mode="w", zarr_format=version)  # type: ignore[arg-type]
        for name, array in arrays.items():
            chunks = (*array.shape[:-1], -(-array.shape[-1] // 2))
            group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)[...] = array

    return save


def _save_idx(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A file with all of them, bytes of one shape: two zeros, 8, the number of axes, the sizes."""
    whole = np.stack([array.squeeze() for array in arrays.values()]).astype(np.uint8)
    path.write_bytes(bytes([0, 0, 8, whole.ndim]) + np.array(whole.shape, ">u4").tobytes() + whole.tobytes())


SAVERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    "images": _save_images,
    "npy": _save_npy,
    "npz": lambda path, arrays: np.savez(path, **arrays),  # type: ignore[arg-type]
    "compressed": lambda path, arrays: np.savez_compressed(path, **arrays),  # type: ignore[arg-type]
    "hdf5": _save_hdf5,
    "zarr2": _save_zarr(2),
    "zarr3": _save_zarr(3),
    "idx": _save_idx,
}


@pytest.fixture(scope="session")
def save_arrays() -> Callable[[str, Path, dict[str, Any]], None]:
    """Writes arrays, channels first, by their names: a file each below the folder (images, npy), or one file."""

    def save(kind: str, path: Path, arrays: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        SAVERS[kind](path, {name: np.asarray(array) for name, array in arrays.items()})

    return save


class CutByNumPy:
    """The slices of an array (C, *space), as `slicer` of a run file has them, by `np.pad` of the voxels of each."""

    def __init__(self, array: np.ndarray, slicer: dict[str, Any]) -> None:
        self.array, self.sizes, self.slicer = array, slicer["sizes"], slicer
        self.strides = slicer.get("strides", self.sizes)
        pads = slicer.get("padding", 0)
        if isinstance(pads, int):
            pads = [0 if size == 1 else pads for size in self.sizes]
        self.pads = [(pad, pad) for pad in pads]
        if "padded_sizes" in slicer:
            extra = [total - size for total, size in zip(slicer["padded_sizes"], self.sizes, strict=True)]
            self.pads = [(more // 2, more - more // 2) for more in extra]
        axes = list(zip(array.shape[1:], self.sizes, self.strides, strict=True))
        if slicer.get("discard_remainders"):
            self.counts = tuple((length - size) // stride + 1 for length, size, stride in axes)
        else:
            self.counts = tuple(
                min(int(np.ceil(max(length - size, 0) / stride)) + 1, int(np.ceil(length / stride)))
                for length, size, stride in axes
            )
        self.count = int(np.prod(self.counts))

    def box(self, number: int) -> tuple[slice, ...]:
        places = np.unravel_index(number, self.counts)
        starts = [int(place) * stride for place, stride in zip(places, self.strides, strict=True)]
        ends = zip(starts, self.sizes, self.array.shape[1:], strict=True)
        return tuple(slice(start, min(start + size, length)) for start, size, length in ends)

    def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Slice `number` (C, *sample), and where the array's own voxels are in it."""
        box, mode = self.box(number), self.slicer.get("padding_mode", "zeros")
        voxels = self.array[(slice(None), *box)]
        pads = [
            (before, after + size - (part.stop - part.start))
            for (before, after), size, part in zip(self.pads, self.sizes, box, strict=True)
        ]
        there = np.pad(np.ones(voxels.shape[1:], bool), pads)
        if mode == "context":
            far = 2 * max(map(max, self.pads)) + 2 * max(self.sizes)
            whole = np.pad(self.array, [(0, 0), *[(far, far)] * len(box)], mode="reflect")
            corners = [far + part.start - before for part, (before, _) in zip(box, pads, strict=True)]
            parts = [slice(at, at + size) for at, size in zip(corners, there.shape, strict=True)]
            padded = whole[(slice(None), *parts)]
        else:
            padded = np.pad(voxels, [(0, 0), *pads], mode="constant" if mode == "zeros" else mode)  # type: ignore[call-overload]
        flat = tuple(axis for axis, size in enumerate(self.sizes) if size == 1)
        padded, there = padded.squeeze(tuple(axis + 1 for axis in flat)), there.squeeze(flat)
        return (padded.swapaxes(1, 2), there.T) if self.slicer.get("transpose") else (padded, there)


@pytest.fixture(scope="session")
def cut_by_numpy() -> type[CutByNumPy]:
    return CutByNumPy
