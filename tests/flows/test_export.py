"""`rml export`: what was trained, run by programs that know nothing of rml."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

Rml = Callable[..., tuple[int, str, str]]

NETWORK = [
    {
        "class_name": "Conv2D",
        "config": {"name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
    },
    {"class_name": "BatchNormalization", "config": {"name": "norm"}},
    {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.5}},
    {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A folder with a run that names its network's file, its checkpoints, and what it predicts for the test samples.
    Of the files that the run file names, only the pictures are still there."""
    from flows.phases import as_it_is, execute
    from rml_core.check import check
    from rml_core.run import read

    folder = tmp_path_factory.mktemp("trained")
    (folder / "network.json").write_text(json.dumps(NETWORK))
    section = {
        "num_epochs": 2,
        "layers": "network.json",
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": str(pictures / "train"),
            "test_input_path": str(pictures / "test"),
            "test_output_path": "predictions",
            "grayscale": True,
            "transforms": [{"random_horizontal_flip": 0.1}],
            "input_transforms": [{"normalize": {"mean": 0.3, "std": 0.5}}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.1},
        "loss": {"function": "NLL"},
        "checkpoints": {"save": "checkpoints", "best": True},
    }
    execute(check(read({"neural_network": section}, folder)), as_it_is)
    (folder / "network.json").unlink()
    return folder


@pytest.fixture
def test_samples(pictures: Path) -> dict[str, np.ndarray]:
    """As the run has prepared them: (1, 1, 12, 12)."""
    import cv2

    found = {}
    for path in sorted((pictures / "test").rglob("*.png")):
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        found[path.relative_to(pictures / "test").as_posix()] = ((pixels - 0.3) / 0.5)[None, None]
    return found


def predicted(trained: Path) -> dict[str, np.ndarray]:
    with h5py.File(trained / "predictions" / "output_2.h5") as file:
        return {f"{label}/{name}": file[label][name][()] for label in file for name in file[label]}


ABOUT = """\
file    {name}: {kind}, float32, in evaluation mode
input   (batch, 1, height, width), channels first
output  (batch, 2), log_softmax
classes ["left", "right"], of the channels
samples images, grey; 8 and 16 bit as numbers from 0 to 1
before  {transforms}
        not in the file: to be done to each sample; random transforms are left out at inference
from    epoch 2 of run {run}
"""


TRANSFORMS = '[{"random_horizontal_flip": 0.1}, {"normalize": {"mean": 0.3, "std": 0.5}}]'


def run_of(trained: Path) -> str:
    return torch.load(trained / "checkpoints" / "model_checkpoint_2.pt", weights_only=True)["run_id"]


ALONE = """
import json, sys
import numpy, torch
try:
    import rml_core
    sys.exit("rml can be imported")
except ImportError:
    pass
about = {"rml.json": ""}
network = torch.export.load(sys.argv[1], extra_files=about).module()
samples = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], **{name: network(torch.from_numpy(samples[name])).numpy() for name in samples})
print(about["rml.json"])
"""


def test_torch_runs_it_without_rml(
    trained: Path, test_samples: dict[str, np.ndarray], rml: Rml, tmp_path: Path
) -> None:
    out = tmp_path / "network.pt2"
    status, output, errors = rml(
        "export", trained / "checkpoints" / "model_checkpoint_2.pt", "--format", "torch", "--out", out
    )
    assert (status, errors) == (0, "")
    assert output == ABOUT.format(name=out, kind="a torch.export program", transforms=TRANSFORMS, run=run_of(trained))
    batch = np.concatenate(list(test_samples.values()))
    np.savez(tmp_path / "samples.npz", batch=batch, large=np.ones((1, 1, 40, 31), np.float32), **test_samples)
    # Without `site` there are no editable installations; torch is found by its folder.
    alone = subprocess.run(
        [sys.executable, "-S", "-c", ALONE, out, tmp_path / "samples.npz", tmp_path / "outputs.npz"],
        env={"PYTHONPATH": sysconfig.get_path("purelib"), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    for name, values in predicted(trained).items():
        np.testing.assert_allclose(outputs[name][0], values, rtol=0, atol=1e-5)
    together = np.stack(list(predicted(trained).values()))
    np.testing.assert_allclose(outputs["batch"], together, rtol=0, atol=1e-5)
    assert outputs["large"].shape == (1, 2)
    assert json.loads(alone.stdout) == {
        "input": "(batch, 1, height, width), channels first",
        "output": "(batch, 2), log_softmax",
        "classes": '["left", "right"]',
        "samples": "images, grey; 8 and 16 bit as numbers from 0 to 1",
        "transforms": TRANSFORMS,
        "checkpoint": f"epoch 2 of run {run_of(trained)}",
    }


def test_onnxruntime_runs_it(
    trained: Path,
    test_samples: dict[str, np.ndarray],
    rml: Rml,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnx
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_checkpoint_2.onnx").write_text("an older one")
    status, output, errors = rml(
        "export", trained / "checkpoints" / "model_checkpoint_2.pt", "--out", "model_checkpoint_2.onnx"
    )
    assert (status, errors) == (0, "")
    session = onnxruntime.InferenceSession("model_checkpoint_2.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    (opset,) = (each.version for each in onnx.load("model_checkpoint_2.onnx").opset_import if not each.domain)
    kind = f"ONNX, opset {opset}"
    name = "model_checkpoint_2.onnx (replaced)"
    assert output == ABOUT.format(name=name, kind=kind, transforms=TRANSFORMS, run=run_of(trained))
    assert json.loads(about["rml.classes"]) == ["left", "right"]
    assert about["rml.samples"] == "images, grey; 8 and 16 bit as numbers from 0 to 1"
    for name, values in predicted(trained).items():
        (outputs,) = session.run(None, {"input": test_samples[name]})
        np.testing.assert_allclose(outputs[0], values, rtol=0, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model_checkpoint_2.onnx"]


def test_without_a_name_the_file_lies_beside_the_checkpoint(
    trained: Path, rml: Rml, tmp_path: Path, in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = (trained / "checkpoints" / "model_checkpoint_best.pt").read_bytes()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "best.pt").write_bytes(content)
    in_memory.pipe_file("/store/far.pt", content)
    assert rml("export", "saved/best.pt", "--format", "torch")[1].startswith("file    saved/best.pt2: a torch")
    assert rml("export", "memory://store/far.pt", "--format", "torch")[1].startswith("file    far.pt2: a torch")
    assert sorted(path.name for path in tmp_path.rglob("*.pt2")) == ["best.pt2", "far.pt2"]
    assert (tmp_path / "saved" / "best.pt2").exists()


def test_any_checkpoint_goes(trained: Path, rml: Rml, tmp_path: Path, in_memory: Any) -> None:
    best = (trained / "checkpoints" / "model_checkpoint_best.pt").read_bytes()
    in_memory.pipe_file("/store/best.pt", best)
    status, output, errors = rml("export", "memory://store/best.pt", "--format", "TORCH", "--out", tmp_path / "a.pt2")
    assert (status, errors) == (0, "")
    assert output.startswith(f"file    {tmp_path}/a.pt2: a torch.export program, float32, in evaluation mode\n")
    assert torch.export.load(tmp_path / "a.pt2").module()(torch.zeros(3, 1, 12, 12)).shape == (3, 2)


def test_it_goes_behind_a_url(trained: Path, rml: Rml, in_memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("export", trained / "checkpoints" / "model_checkpoint_2.pt", "--format", "torch", "--out")
    status, output, errors = rml(*command, "memory://store/a.pt2")
    assert (status, errors) == (0, "")
    assert output.startswith("file    memory://store/a.pt2: ")
    assert torch.export.load(in_memory.open("/store/a.pt2")).module()(torch.zeros(1, 1, 12, 12)).shape == (1, 2)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(in_memory), "put_file", refuse)
    assert rml(*command, "memory://store/b.pt2") == (1, "", "memory://store/b.pt2: Access Denied\n")
    assert rml(*command, "https://host/b.pt2") == (
        *(2, ""),
        f'{command[1]}: 1 problem\n\n--out: "https://host/b.pt2": nothing can be written to a web server\n'
        "    allowed: a path of this machine, or a URL that takes files, as s3://bucket/name\n",
    )


def test_what_the_data_was_is_told(trained: Path, rml: Rml, tmp_path: Path) -> None:
    saved = torch.load(trained / "checkpoints" / "model_checkpoint_2.pt", weights_only=True)
    run = json.loads(saved["run"])
    data = run["neural_network"]["data"]
    data |= {"transforms": [], "input_transforms": [], "type": "Images"}
    del data["grayscale"], data["input_type"], data["target_type"]
    torch.save({**saved, "run": json.dumps(run), "classes": [], "mask_values": [0, 255]}, tmp_path / "masks.pt")
    output = rml("export", tmp_path / "masks.pt", "--format", "torch", "--out", tmp_path / "a.pt2")[1]
    assert output.splitlines()[3:-1] == [
        "masks   [0, 255], of the channels: the value in the files for each",
        "samples images, BGR as OpenCV reads them; 8 and 16 bit as numbers from 0 to 1",
    ]


def test_what_cannot_be_exported(trained: Path, rml: Rml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = trained / "checkpoints" / "model_checkpoint_2.pt"
    torch.save({"dense.weight": torch.ones(2)}, tmp_path / "state.pt")
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:-100])
    content = bytearray(checkpoint.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 500):
        content[place] ^= 1
    (tmp_path / "damaged.pt").write_bytes(content)
    (tmp_path / "note.txt").write_text("not weights")
    run = "a file that checkpoints.save left, as model_checkpoint_best.pt"
    copied = "it was not written or copied to its end; take an earlier one, or copy it again"
    expected: list[tuple[tuple[object, ...], str]] = [
        (("nothing.pt",), "nothing.pt: no such file or directory"),
        (
            ("state.pt",),
            "state.pt is not a checkpoint of a run: weights alone do not say what their network is\n"
            f"    allowed: {run}",
        ),
        (("cut.pt",), f"cut.pt is cut short\n    {copied}"),
        (("damaged.pt",), "damaged.pt is damaged\n    take an earlier one, or copy it again"),
        (
            ("note.txt",),
            "note.txt is not a checkpoint of a run: weights alone do not say what their network is\n"
            f"    allowed: {run}",
        ),
        (
            (checkpoint, "--format", "onx"),
            '--format: unknown format "onx"\n    allowed: onnx, torch\n    did you mean "onnx"?',
        ),
        ((checkpoint, "--out", "."), "--out: . is a folder\n    allowed: the name of a file"),
        (
            (checkpoint, "--out", "a.torch"),
            "--out: a.torch does not end in .onnx\n    allowed: a.onnx",
        ),
        (
            (checkpoint, "--format", "torch", "--out", "a"),
            "--out: a does not end in .pt2\n    allowed: a.pt2",
        ),
        (
            (checkpoint, "--out", "no/such/file.onnx"),
            f"--out: no/such/file.onnx cannot be written: {tmp_path}/no/such is no folder",
        ),
    ]
    for arguments, problem in expected:
        assert rml("export", *arguments) == (2, "", f"{arguments[0]}: 1 problem\n\n{problem}\n")


def test_packages_that_are_not_installed(trained: Path, rml: Rml, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    checkpoint = trained / "checkpoints" / "model_checkpoint_2.pt"
    assert rml("export", checkpoint) == (
        *(2, ""),
        f'{checkpoint}: 1 problem\n\n--format: onnx needs packages: onnxscript\n    pip install "rml[onnx]"\n',
    )


def test_a_place_that_takes_no_files(trained: Path, rml: Rml) -> None:
    checkpoint = trained / "checkpoints" / "model_checkpoint_2.pt"
    ended = rml("export", checkpoint, "--format", "torch", "--out", "/proc/a.pt2")
    assert ended == (1, "", "/proc/a.pt2: No such file or directory\n")


def test_the_checkpoint_of_an_older_version(trained: Path, rml: Rml, tmp_path: Path) -> None:
    """It does not say what its network was given: the network itself may."""
    saved = torch.load(trained / "checkpoints" / "model_checkpoint_2.pt", weights_only=True)
    del saved["sample_shape"]
    torch.save(saved, tmp_path / "old.pt")
    status, output, errors = rml("export", tmp_path / "old.pt", "--format", "torch", "--out", tmp_path / "a.pt2")
    assert (status, output) == (2, "")
    assert errors == (
        f"{tmp_path}/old.pt: 1 problem\n\nneural_network.layers: the network does not say the shape of its input\n"
        '    give its first layer "batch_input_shape": [null, height, width, channels]\n'
    )
    run = json.loads(saved["run"])
    run["neural_network"]["layers"] = copy.deepcopy(NETWORK)
    run["neural_network"]["layers"][0]["config"]["batch_input_shape"] = [None, 12, 12, 1]
    torch.save({**saved, "run": json.dumps(run)}, tmp_path / "old.pt")
    assert rml("export", tmp_path / "old.pt", "--format", "torch", "--out", tmp_path / "a.pt2")[0] == 0
