"""Run files and files with samples or weights that want to run code, to reach other files, or to fill the memory."""

from __future__ import annotations

import base64
import gzip
import json
import marshal
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rml_core.check import check
from rml_core.checkpoints.table import read as weights_of
from rml_core.config.problem import Refused, RunFailed
from rml_core.data.files import Form, Item
from rml_core.data.table import DATA_TYPES
from rml_core.layers.keras_json import load
from rml_core.run import ROOT, read

DENSE = {"class_name": "Dense", "config": {"units": 2, "input_shape": [4]}}


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


@pytest.fixture
def proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "proof"
    yield made
    assert not made.exists(), "code was run"


def _code() -> list[Any]:
    written = compile("__import__('os').system('touch proof')", "x", "eval")
    return [base64.b64encode(marshal.dumps(written)).decode(), None, None]


LAMBDA = {"class_name": "__lambda__", "config": {"code": _code()[0], "defaults": None, "closure": None}}


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"class_name": "Lambda", "config": {"function": _code(), "function_type": "lambda"}}, "class_name: unknown"),
        ({"class_name": "Lambda", "module": "keras.layers", "config": {"function": LAMBDA}}, "class_name: unknown"),
        ({"class_name": "system", "module": "os", "registered_name": "os>system"}, "class_name: unknown layer"),
        (
            {"class_name": "Dense", "config": {"units": 2, "activation": "os.system"}},
            'unknown activation "os.system"',
        ),
        ({"class_name": "Dense", "config": {"units": 2, "activation": LAMBDA}}, "activation"),
        ({"class_name": "Dense", "config": {"units": 2, "kernel_initializer": LAMBDA}}, "kernel_initializer"),
        ({"class_name": "Dense", "config": {"units": 2, "kernel_regularizer": LAMBDA}}, "kernel_regularizer"),
        ({"class_name": "TFOpLambda", "config": {"function": "io.read_file"}}, "io.read_file"),
    ],
)
def test_a_network_runs_no_code(layer: dict[str, Any], said: str, tmp_path: Path, proof: Path) -> None:
    archive = tmp_path / "model.keras"
    model = {"class_name": "Sequential", "module": "keras", "config": {"name": "s", "layers": [DENSE, layer]}}
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("config.json", json.dumps(model))
        made.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
    for layers in ([DENSE, layer], model, str(archive)):
        with pytest.raises(Refused) as refused:
            read({ROOT: {"layers": layers, "data": {"type": "numpy", "input_path": "x"}}}, tmp_path)
        assert said in str(refused.value)


def _pickled(path: Path, evil: Evil) -> None:
    path.write_bytes(pickle.dumps({"weight": evil}))


def _torch_zip(path: Path, evil: Evil) -> None:
    torch.save({"weight": evil}, path)


def _torch_legacy(path: Path, evil: Evil) -> None:
    torch.save({"weight": evil}, path, _use_new_zipfile_serialization=False)


def _libtorch(path: Path, evil: Evil) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/constants.pkl", pickle.dumps(()))
        archive.writestr("m/version", "3")
        archive.writestr("m/code/__torch__.py", "import os; os.system('touch proof')")
        archive.writestr("m/data.pkl", pickle.dumps(evil))


def _traversing(path: Path, evil: Evil) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr(f"../{evil.proof.name}", "x")
        archive.writestr(str(evil.proof), "x")
        archive.writestr("model.weights.h5", "x")


@pytest.mark.parametrize("make", [_pickled, _torch_zip, _torch_legacy, _libtorch, _traversing])
def test_weights_run_no_code(make: Callable[[Path, Evil], None], tmp_path: Path, proof: Path) -> None:
    make(tmp_path / "weights.pt", Evil(proof))
    np.save(tmp_path / "x.npy", np.ones((4,), "f4"))
    section = {
        "layers": [DENSE],
        "data": {"type": "numpy", "test_input_path": "x.npy"},
        "checkpoints": {"load": "weights.pt"},
    }
    steps = (lambda: check(read({ROOT: section}, tmp_path)), lambda: weights_of(tmp_path / "weights.pt", "load"))
    with pytest.raises(Refused, match=r"weights\.pt"):
        # Some formats are read by name before the run, others when their weights are.
        [step() for step in steps]


def _npy(path: Path, evil: Evil) -> None:
    np.save(path, np.array([evil]), allow_pickle=True)


def _npz(path: Path, evil: Evil) -> None:
    np.savez(path, np.array([evil]))


def _zarr_2(**metadata: Any) -> Callable[[Path, Evil], None]:
    def make(path: Path, evil: Evil) -> None:
        path.mkdir()
        whole = {"zarr_format": 2, "shape": [1, 4], "chunks": [1, 4], "dtype": "<f4", "compressor": None}
        (path / ".zarray").write_text(json.dumps({**whole, "fill_value": 0, "order": "C", "filters": None, **metadata}))
        (path / "0.0").write_bytes(pickle.dumps(evil))

    return make


def _zarr_3(codec: str) -> Callable[[Path, Evil], None]:
    def make(path: Path, evil: Evil) -> None:
        (path / "c" / "0").mkdir(parents=True)
        (path / "c" / "0" / "0").write_bytes(pickle.dumps(evil))
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": codec, "configuration": {}}]
        grid = {"name": "regular", "configuration": {"chunk_shape": [1, 4]}}
        whole = {"zarr_format": 3, "node_type": "array", "shape": [1, 4], "data_type": "float32", "chunk_grid": grid}
        rest = {"chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": codecs, "attributes": {}}
        (path / "zarr.json").write_text(json.dumps({**whole, **rest}))

    return make


PICKLE = {"id": "pickle", "protocol": 5}


@pytest.mark.parametrize(
    ("kind", "name", "make"),
    [
        ("numpy", "a.npy", _npy),
        ("numpy", "a.npz", _npz),
        ("zarr", "a", _zarr_2(filters=[PICKLE])),
        ("zarr", "a", _zarr_2(compressor=PICKLE)),
        ("zarr", "a", _zarr_2(dtype="|O", filters=[PICKLE])),
        ("zarr", "a", _zarr_2(dtype="|O", filters=[{"id": "vlen-utf8"}, PICKLE])),
        ("zarr", "a", _zarr_3("numcodecs.pickle")),
    ],
)
def test_samples_run_no_code(
    kind: str, name: str, make: Callable[[Path, Evil], None], tmp_path: Path, proof: Path
) -> None:
    make(tmp_path / name, Evil(proof))
    reader, file = DATA_TYPES[kind].reader, str(tmp_path / name)
    for step in (
        lambda: reader.contents(file, ""),
        lambda: reader.read(Item(file, "arr_0" if name.endswith("z") else ""), Form(kind)),
        lambda: reader.volume(Item(file, "arr_0" if name.endswith("z") else ""), 1 << 20).read((slice(0, 1),) * 2),
    ):
        with pytest.raises(RunFailed, match=f"^{tmp_path / name}") as failed:
            step()
        assert "\n" not in str(failed.value)


def test_samples_that_lie_in_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones((1, 4, 4))
    (tmp_path / "raw").write_bytes(bytes(64))
    with h5py.File(root / "a.h5", "w") as file:
        file["own"] = np.ones((1, 4, 4))
        file["link"] = h5py.ExternalLink("../other.h5", "x")
        file["group"] = h5py.ExternalLink("../other.h5", "/")
        file.create_dataset("raw", (1, 4, 4), "f4", external=[(str(tmp_path / "raw"), 0, 64)])
        layout = h5py.VirtualLayout((1, 4, 4), "f8")
        layout[:] = h5py.VirtualSource("../other.h5", "x", (1, 4, 4))
        file.create_virtual_dataset("parts", layout)
    name, reader = str(root / "a.h5"), DATA_TYPES["hdf5"].reader
    assert reader.volume(Item(name, "link"), 1 << 20).read((slice(0, 1),) * 3)[0, 0, 0] == 1
    monkeypatch.setenv("RML_ROOTS", str(root))
    assert reader.contents(name, "own")[0][1].shape == (1, 4, 4)
    for inside in ("link", "group/x", "raw", "parts"):
        for step in (
            lambda: reader.contents(name, inside),  # noqa: B023
            lambda: reader.read(Item(name, inside), Form("hdf5")),  # noqa: B023
            lambda: reader.volume(Item(name, inside), 1 << 20),  # noqa: B023
        ):
            with pytest.raises(RunFailed) as failed:
                step()
            why = "lies in another file, which is not read where RML_ROOTS is set: copy it into one file"
            assert str(failed.value) == f"{name}:/{inside}: {why}"


@pytest.mark.parametrize("kind", ["images", "zarr"])
def test_links_among_samples_that_lead_outside(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "in").mkdir(parents=True)
    out.mkdir()
    if kind == "zarr":
        _zarr_3("bytes")(root / "store", Evil(out))
        (root / "store" / "c" / "1").symlink_to(out)
    (root / "in" / "a.png").symlink_to("/etc/passwd")
    (root / "below").symlink_to(out)
    monkeypatch.setenv("RML_ROOTS", str(root))
    with pytest.raises(Refused) as refused:
        DATA_TYPES[kind].reader.find(".", root, "here", "training", False)
    names = "below, in/a.png" + (", store/c/1" if kind == "zarr" else "")
    assert str(refused.value) == (
        f"here: {root} has links that lead outside of what may be read here: {names}\n"
        f"    allowed: below {root} (RML_ROOTS)\n    put copies there instead of links, or take them out"
    )


def test_a_packed_file_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    """The length at the end of a gzip file is the last of its members' alone."""
    said = struct.pack(">HBBIII", 0, 8, 3, 2, 2, 2) + bytes(8)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(said + bytes(1 << 20)) + gzip.compress(said))
    with pytest.raises(RunFailed) as failed:
        DATA_TYPES["mnist"].reader.read(Item(str(file), "00000"), Form("mnist"))
    assert str(failed.value) == f"{file}: is damaged: its header says 24 bytes, and there are more"


def test_an_image_of_a_size_that_it_cannot_have(tmp_path: Path) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 1 << 16, 1 << 16, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(head) - 4) + head + struct.pack(">I", zlib.crc32(head))
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND\xaeB`\x82")
    with pytest.raises(RunFailed) as failed:
        DATA_TYPES["images"].reader.read(Item(str(file)), Form("images"))
    assert str(failed.value) == f"{file}: cannot be decoded: not an image that OpenCV reads, or damaged"


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_arrays_that_claim_terabytes(kind: str, tmp_path: Path) -> None:
    if kind == "hdf5":
        with h5py.File(tmp_path / "a", "w") as file:
            file.create_dataset("x", (1, 10**7, 10**7), "f4", chunks=(1, 1, 1))
    else:
        _zarr_2(shape=[1, 10**14], chunks=[1, 10**14])(tmp_path / "a", Evil(tmp_path))
    with pytest.raises(RunFailed, match=r"/a[^\n]*cannot be read: [^\n]*Unable to allocate 364. TiB") as failed:
        DATA_TYPES[kind].reader.read(Item(str(tmp_path / "a"), "x" if kind == "hdf5" else ""), Form(kind))
    assert "\n" not in str(failed.value)


def test_a_network_that_is_no_network_is_not_said(tmp_path: Path) -> None:
    """What stands in a file that was named as a network is nobody's business."""
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(Refused) as refused:
        load("passwd", "neural_network.layers", tmp_path)
    assert "root:" not in str(refused.value)


def test_a_zarr_store_whose_name_is_a_chain_is_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec would read `st`, which is a link that leads outside."""
    import zarr

    root = tmp_path / "root"
    for folder, value in ((root / "st::a", 1.0), (tmp_path / "out", 77.0)):
        zarr.create_array(folder, shape=(1, 4, 4), dtype="f4", fill_value=value)
    (root / "st").symlink_to(tmp_path / "out")
    for roots in (None, str(root)):
        if roots:
            monkeypatch.setenv("RML_ROOTS", roots)
        item = Item(str(root / "st::a"), "")
        assert DATA_TYPES["zarr"].reader.read(item, Form("zarr")).max() == 1


def test_a_chunk_that_becomes_a_link_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    (tmp_path / "secret").write_bytes(b"TOPSECRET" * 8)
    store = tmp_path / "root" / "store"
    array = zarr.create_array(store, shape=(1, 4, 4), dtype="f4", compressors=None, chunks=(1, 4, 4))
    array[:] = 1.0
    monkeypatch.setenv("RML_ROOTS", str(tmp_path / "root"))
    reader, item = DATA_TYPES["zarr"].reader, Item(str(store), "")
    volume = reader.volume(item, 1 << 20)
    box = (slice(0, 1), slice(0, 4), slice(0, 4))
    (chunk,) = (path for path in store.rglob("*") if path.is_file() and path.suffix != ".json")
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    for step in (lambda: reader.read(item, Form("zarr")), lambda: volume.read(box)):
        with pytest.raises(RunFailed, match=r"cannot be read: it leads to [^\n]*/secret, which is not below"):
            step()


def test_weights_are_those_of_the_file_that_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is changed between the look and the reading leads nowhere else."""
    from rml_core.checkpoints import torch_files

    for name, value in (("own", 1.0), ("other", 2.0)):
        (tmp_path / name).mkdir()
        torch.save({"dense.weight": torch.full((2, 2), value)}, tmp_path / name / "weights.pt")
    link = tmp_path / "own" / "link.pt"
    link.symlink_to("weights.pt")
    monkeypatch.setenv("RML_ROOTS", str(tmp_path / "own"))
    real = torch.load

    def swapped(*arguments: Any, **options: Any) -> Any:
        link.unlink()
        link.symlink_to(tmp_path / "other" / "weights.pt")
        return real(*arguments, **options)

    monkeypatch.setattr(torch_files.torch, "load", swapped)
    (held,) = weights_of(link, "here").held
    assert held.weights[0][1].max() == 1
    with pytest.raises(Refused, match="which is not below"):
        weights_of(link, "here")
