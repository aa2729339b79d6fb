"""Bad input, through the real command: the whole message, the exit status, and that nothing is lost."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

Rml = Callable[..., tuple[int, str, str]]
RML = Path(sys.executable).with_name("rml")

CLASSES = "classes left -> 0, right -> 1\n"


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: what a full disk is to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def own(classification: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The section of a run file whose pictures lie in the test's own folder, to be damaged; one epoch."""
    section: dict[str, Any] = classification["neural_network"]
    for key, name in (("input_path", "train"), ("test_input_path", "test")):
        shutil.copytree(section["data"][key], tmp_path / name)
        section["data"][key] = name
    section["num_epochs"] = 1
    return section


@pytest.fixture
def masks(tmp_path: Path) -> dict[str, Any]:
    """The section of a run file that finds the bright pixels of 8 pictures, in the test's own folder."""
    random = np.random.default_rng(5)
    for role, count in (("", 8), ("test_", 4)):
        for kind in ("inputs", "masks"):
            (tmp_path / f"{role}{kind}").mkdir()
        for index in range(count):
            picture = random.integers(0, 255, (12, 12), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"{role}inputs" / f"{index}.png"), picture)
            cv2.imwrite(str(tmp_path / f"{role}masks" / f"{index}.png"), (picture > 128).astype(np.uint8) * 255)
    layer = {"filters": 1, "kernel_size": 3, "padding": "same", "activation": "sigmoid"}
    return {
        "outfile": "out.txt",
        "layers": [{"class_name": "Conv2D", "config": {"name": "conv", **layer}}],
        "data": {
            "type": "images",
            "input_path": "inputs",
            "target_path": "masks",
            "test_input_path": "test_inputs",
            "test_target_path": "test_masks",
            "grayscale": True,
            "target_is_mask": True,
            "batch_size": 4,
            "test_batch_size": 4,
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.1},
        "loss": {"function": "Dice"},
    }


@pytest.fixture
def run(rml: Rml, run_file: Callable[..., Path]) -> Callable[..., tuple[int, str, str]]:
    """Runs a section, untracked: (exit status, standard output, standard error)."""

    def call(section: dict[str, Any], *arguments: object, room: int | None = None) -> tuple[int, str, str]:
        file = run_file({"neural_network": section})
        with room_for(room) if room is not None else nullcontext():
            return rml("run", file, "--untracked", *arguments)

    return call


@pytest.fixture
def refuses(run: Rml, tmp_path: Path) -> Callable[..., None]:
    """Asserts that a run is refused before any work, with exactly these problems, and that it leaves nothing."""

    def check(section: dict[str, Any], *problems: str, arguments: tuple[object, ...] = (), output: str = "") -> None:
        before = contents(tmp_path)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        expected = f"{tmp_path}/run.json: {count}\n\n" + "".join(f"{problem}\n" for problem in problems)
        assert run(section, *arguments) == (2, output, expected)
        before["run.json"] = (tmp_path / "run.json").read_bytes()
        assert contents(tmp_path) == before

    return check


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unfinished(folder: Path) -> list[str]:
    """Hidden files: what was not finished has such a name. (The note of a folder's latest run is whole.)"""
    return [path.name for path in folder.rglob(".*") if path.name != ".latest_run.json"]


def damage(path: Path) -> None:
    """Overwrite some of the pixels of a PNG file."""
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])


# --- folders and files


@pytest.mark.parametrize("preload", [True, False])
def test_a_folder_that_does_not_exist(own: dict[str, Any], refuses: Any, preload: bool, tmp_path: Path):
    own["data"] |= {"input_path": "trian", "test_input_path": "somewhere/test", "preload": preload}
    (tmp_path / "run.json").touch()
    refuses(
        own,
        f"neural_network.data.input_path: {tmp_path}/trian does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {tmp_path} has run.json, test, train",
        f"neural_network.data.test_input_path: {tmp_path}/somewhere/test does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {tmp_path} has run.json, test, train",
    )


def test_a_folder_without_images(own: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    own["data"] |= {"input_path": "empty", "test_input_path": "texts"}
    refuses(
        own,
        f"neural_network.data.input_path: {tmp_path}/empty has no images: it is empty\n"
        "    name the folder that has the images, or put them there",
        f"neural_network.data.test_input_path: {tmp_path}/texts has no images, only other files: 1 .txt\n"
        "    name the folder that has the images, or put them there",
    )


@pytest.mark.parametrize("preload", [True, False])
def test_a_file_that_is_no_image(own: dict[str, Any], refuses: Any, preload: bool, tmp_path: Path):
    own["data"]["preload"] = preload
    (tmp_path / "train" / "left" / "img3.png").write_bytes(b"no image")
    (tmp_path / "train" / "right" / "img1.png").write_bytes(b"")
    cut_short = tmp_path / "train" / "right" / "img2.png"
    cut_short.write_bytes(cut_short.read_bytes()[:-30])
    refuses(
        own,
        f"neural_network.data.input_path: {tmp_path}/train/left/img3.png: cannot be decoded: not an image that "
        "OpenCV reads, or damaged",
        f"neural_network.data.input_path: {tmp_path}/train/right/img1.png: cannot be decoded: the file is empty",
        f"neural_network.data.input_path: {cut_short}: cannot be decoded: not an image that OpenCV reads, or damaged",
    )


@pytest.mark.parametrize(
    ("preload", "resize", "phase"),
    [(True, False, "load training"), (True, True, "transform training"), (False, False, "train epoch 1")],
)
def test_a_file_that_is_damaged_behind_its_header(
    own: dict[str, Any], run: Rml, preload: bool, resize: bool, phase: str, tmp_path: Path
):
    """Its size can be read: only decoding shows the damage."""
    own["data"]["preload"] = preload
    if resize:
        own["data"]["transforms"].insert(0, {"resize": [12, 12]})
    damaged = tmp_path / "train" / "left" / "img3.png"
    damage(damaged)
    why = "cannot be decoded: not an image that OpenCV reads, or damaged"
    output = CLASSES if phase == "train epoch 1" else ""
    assert run(own) == (1, output, f"{phase}: {damaged}: {why}\n")


def test_a_run_that_cannot_load_its_data_leaves_the_logs_of_the_one_before(
    own: dict[str, Any], run: Rml, tmp_path: Path
):
    assert run(own)[0] == 0
    before = contents(tmp_path)
    damaged = tmp_path / "train" / "left" / "img3.png"
    damage(damaged)
    assert run(own)[0] == 1
    after = contents(tmp_path)
    assert after == before | {"train/left/img3.png": damaged.read_bytes()}


def test_sizes_that_differ(own: dict[str, Any], refuses: Any, run: Rml, tmp_path: Path):
    for name in ("train", "test"):
        cv2.imwrite(str(tmp_path / name / "left" / "img3.png"), np.zeros((10, 14), np.uint8))

    def differ(key: str, batch_key: str, folder: Path) -> str:
        return (
            f"neural_network.data.{key}: sizes differ: {folder}/left/img0.png gives 12 x 12 (width x height), "
            f"{folder}/left/img3.png 14 x 10 (width x height)\n"
            "    allowed: samples of one size\n"
            '    add a transform that makes them equal, as {"resize": [Sx, Sy]}, '
            f"or set {batch_key} to 1"
        )

    refuses(
        own,
        differ("input_path", "batch_size", tmp_path / "train"),
        differ("test_input_path", "test_batch_size", tmp_path / "test"),
    )
    own["data"]["transforms"].insert(0, {"resize": [12, 12]})
    assert run(own)[::2] == (0, "")


def test_inputs_without_partner(masks: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "masks" / "3.png").unlink()
    (tmp_path / "test_inputs" / "0.png").unlink()
    remedy = "    give both the same name (suffixes may differ), or as many of one as of the other"
    refuses(
        masks,
        f"neural_network.data.target_path: 8 inputs in {tmp_path}/inputs and 7 targets in {tmp_path}/masks do not "
        f"pair; inputs without a target: 3.png\n{remedy}",
        f"neural_network.data.test_target_path: 3 inputs in {tmp_path}/test_inputs and 4 targets in "
        f"{tmp_path}/test_masks do not pair; targets without an input: 0.png\n{remedy}",
    )


def test_partners_of_other_names_are_paired_and_that_is_said(masks: dict[str, Any], run: Rml, tmp_path: Path):
    (tmp_path / "masks" / "3.png").rename(tmp_path / "masks" / "3b.png")
    status, _, errors = run(masks)
    said = "warning: inputs and targets have different names: they are paired in sorted order, 3.png with 3b.png\n"
    assert (status, errors) == (0, said)


def test_a_test_class_unseen_in_training(own: dict[str, Any], refuses: Any, tmp_path: Path):
    shutil.copytree(tmp_path / "test" / "left", tmp_path / "test" / "middle")
    refuses(
        own,
        f'neural_network.data.test_input_path: class "middle" of {tmp_path}/test/middle/img0.png was not there in '
        "training\n"
        "    allowed: the classes of training: left, right\n"
        "    leave these files out, train with this class, or set test_tag where the class is another folder",
    )


def test_values_of_masks_that_are_no_classes(masks: dict[str, Any], run: Rml, tmp_path: Path):
    mask = cv2.imread(str(tmp_path / "test_masks" / "1.png"), cv2.IMREAD_GRAYSCALE)
    mask[0, :2] = 7, 9
    cv2.imwrite(str(tmp_path / "test_masks" / "1.png"), mask)
    assert run(masks) == (
        1,
        "mask values 0 -> 0, 255 -> 1\n",
        f"load test: {tmp_path}/test_masks/1.png: value 7 stands for no class: training masks have 0, 255; nor do 9; "
        "mend the mask, or train on masks that have this value\n",
    )
    cv2.imwrite(str(tmp_path / "masks" / "1.png"), mask)
    assert run(masks) == (
        1,
        "",
        "load training: the masks have 4 distinct values (0, 7, 9, 255), the network has 2 classes; 9 is in "
        f"{tmp_path}/masks/1.png; give it an output for each value, or mend the masks (JPEG makes values of its own: "
        "use PNG)\n",
    )


# --- networks and losses


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"activation": "linear"},
            "NLL takes log-probabilities, and the network ends in linear\n"
            '    end the network with log_softmax, or say "source": "logits"',
        ),
        (
            {"units": 1},
            "NLL takes an output for each class: the network's output (1,) has one, against the targets, one class "
            "of 2 a sample\n"
            "    end the network with 2 outputs and log_softmax, or use BCE",
        ),
    ],
)
def test_a_network_that_does_not_fit_the_loss(own: dict[str, Any], refuses: Any, change: dict[str, Any], problem: str):
    own["layers"][-1]["config"] |= change
    refuses(own, f"neural_network.loss: {problem}")


def test_a_network_that_does_not_fit_labels(own: dict[str, Any], refuses: Any):
    del own["layers"][3]
    refuses(
        own,
        "neural_network.loss: NLL cannot compare the network's output (2, 6, 6) with the targets, one class of 2 a "
        "sample\n"
        "    end the network with Flatten or a global pooling, and a Dense layer",
    )


def test_a_network_that_does_not_fit_masks(masks: dict[str, Any], refuses: Any):
    masks["layers"][0]["config"]["strides"] = 2
    refuses(
        masks,
        "neural_network.loss: Dice cannot compare the network's output (1, 6, 6) with the targets, one class a pixel "
        "of (12, 12)\n"
        "    let the last layer's height, width and so on be (12, 12)",
    )


def test_a_network_that_does_not_fit_values(masks: dict[str, Any], refuses: Any):
    masks["data"]["target_is_mask"] = False
    masks["loss"] = {"function": "MSE"}
    masks["layers"][0]["config"]["filters"] = 2
    refuses(
        masks,
        "neural_network.loss: MSE cannot compare the network's output (2, 12, 12) with the targets (1, 12, 12)\n"
        "    make the last layer give (1, 12, 12)",
    )


@pytest.mark.parametrize(
    ("loss", "end", "gamma", "became"),
    [("NLL", "log_softmax", 1e40, "nan"), ("MSE", "linear", 1e30, "inf")],
    ids=["nan", "inf"],
)
def test_a_loss_that_is_not_finite(
    own: dict[str, Any], run: Rml, loss: str, end: str, gamma: float, became: str, tmp_path: Path
):
    own |= {"num_epochs": 3, "loss": {"function": loss}}
    own["layers"] = own["layers"][3:]
    own["layers"][-1]["config"]["activation"] = end
    # Epoch 1 is harmless, the first update of epoch 2 is not.
    schedule = {"type": "MultiStep", "gamma": gamma, "milestones": [1]}
    own["optimizer"] = {"type": "SGD", "learning_rate": 1e-2, "lr_scheduler": schedule}
    status, output, errors = run(own)
    assert (status, errors) == (
        1,
        f"train epoch 2: the loss became {became} in epoch 2, batch 2: lower optimizer.learning_rate, set "
        "optimizer.clip_norm, or look for broken samples; earlier checkpoints are kept\n",
    )
    assert output.startswith(f"{CLASSES}epoch 1/3  loss ")
    assert len(output.splitlines()) == 2
    last = (tmp_path / "out_train.txt").read_text().splitlines()[-1].split()
    assert (last[:2], last[3]) == (["2", "2"], became)
    assert len((tmp_path / "out_test.txt").read_text().splitlines()) == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt")) == ["model_checkpoint_1.pt"]
    assert torch.load(tmp_path / "checkpoints" / "model_checkpoint_1.pt", weights_only=True)["epoch"] == 1
    assert unfinished(tmp_path) == []


def test_weights_that_are_not_finite_are_not_saved(own: dict[str, Any], run: Rml, tmp_path: Path):
    """The only batch of epoch 2 has a finite loss, and ruins the weights: a resumed run must not start from them."""
    own |= {"num_epochs": 2, "loss": {"function": "MSE"}}
    own["data"]["batch_size"] = 24
    own["layers"][-1]["config"]["activation"] = "linear"
    schedule = {"type": "MultiStep", "gamma": 1e44, "milestones": [1]}
    own["optimizer"] = {"type": "SGD", "learning_rate": 1e-2, "momentum": 0.9, "lr_scheduler": schedule}
    own["checkpoints"]["keep"] = 1
    status, _, errors = run(own)
    assert (status, errors) == (
        1,
        "checkpoint epoch 2: the weights became nan or infinite in epoch 2: lower optimizer.learning_rate, or set "
        "optimizer.clip_norm; earlier checkpoints are kept\n",
    )
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt")) == ["model_checkpoint_1.pt"]
    assert len((tmp_path / "out_test.txt").read_text().splitlines()) == 1


# --- checkpoints


class Evil:
    """Unpickled, it makes the file `executed`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder / "executed"),)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


CUT = "{path} is cut short\n    it was not written or copied to its end; take an earlier one, or copy it again"
NO_WEIGHTS = (
    "{path} is not a file with weights\n    allowed: a checkpoint of a run, or a state_dict that torch.save wrote"
)
EXECUTES = (
    "{path} would execute code when it is read (posix.mkdir); it was not read\n"
    "    save weights alone: torch.save(model.state_dict(), FILE)"
)
NONE_FITS = "no layer of the network has weights in the file\n    Skipping layer other: not found in model"

BAD_CHECKPOINTS: dict[str, tuple[Callable[[bytes, Path], bytes], str]] = {
    "half": (lambda whole, folder: whole[: len(whole) // 2], CUT),
    "its last bytes missing": (lambda whole, folder: whole[:-10], CUT),
    "empty": (lambda whole, folder: b"", CUT),
    "text": (lambda whole, folder: b"epoch 1, loss 0.5", NO_WEIGHTS),
    "code in an archive": (lambda whole, folder: saved({"network": Evil(folder)}), EXECUTES),
    "code in a pickle": (lambda whole, folder: pickle.dumps(Evil(folder)), EXECUTES),
    "another network": (lambda whole, folder: saved({"other.weight": torch.zeros(3)}), NONE_FITS),
}


@pytest.mark.parametrize("bad", BAD_CHECKPOINTS)
def test_a_bad_file_to_load(own: dict[str, Any], run: Rml, refuses: Any, bad: str, tmp_path: Path):
    assert run(own)[0] == 0
    path = tmp_path / "weights.pt"
    make, problem = BAD_CHECKPOINTS[bad]
    path.write_bytes(make((tmp_path / "checkpoints" / "model_checkpoint_1.pt").read_bytes(), tmp_path))
    own["checkpoints"]["load"] = "weights.pt"
    # Only torch can tell these two apart from weights that fit.
    late = bad in ("code in an archive", "another network")
    problem = "neural_network.checkpoints.load: " + problem.format(path=path)
    refuses(own, problem, output=CLASSES if late else "")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("bad", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_passed_over_when_resuming(own: dict[str, Any], run: Rml, bad: str, tmp_path: Path):
    assert run(own)[0] == 0
    good = tmp_path / "checkpoints" / "model_checkpoint_1.pt"
    before = good.read_bytes()
    make, problem = BAD_CHECKPOINTS[bad]
    path = tmp_path / "checkpoints" / "model_checkpoint_2.pt"
    path.write_bytes(make(before, tmp_path))
    own["num_epochs"] = 2
    status, output, errors = run(own, "--resume", "auto")
    what = problem.format(path=path).splitlines()[0]
    if bad == "another network":
        what = f"{path} is not a checkpoint of a run"
    assert (status, errors) == (0, f"passed over: {what}\n")
    assert output.startswith(f"resuming {good} (behind epoch 1)\n")
    assert good.read_bytes() == before
    assert torch.load(path, weights_only=True)["epoch"] == 2
    assert not (tmp_path / "executed").exists()


def test_a_file_to_load_that_is_not_there(own: dict[str, Any], refuses: Any, tmp_path: Path):
    own["checkpoints"]["load"] = "weights.pt"
    where = "neural_network.checkpoints.load"
    refuses(own, f"{where}: {tmp_path}/weights.pt does not exist\n    allowed: a file with weights")
    own["checkpoints"]["load"] = "train"
    refuses(own, f"{where}: {tmp_path}/train is a folder\n    allowed: a file with weights")


# --- disks that are full


def test_a_full_disk_while_a_checkpoint_is_written(own: dict[str, Any], run: Rml, tmp_path: Path):
    assert run(own)[0] == 0
    folder = tmp_path / "checkpoints"
    before = contents(folder)
    own |= {"num_epochs": 3}
    del own["outfile"], own["data"]["test_output_path"]
    status, _, errors = run(own, "--resume", "auto", room=10_000)
    path = folder / "model_checkpoint_2.pt"
    assert (status, errors) == (
        1,
        f"checkpoint epoch 2: {path}: File too large; the earlier checkpoints are whole\n",
    )
    assert contents(folder) == before
    own["outfile"] = "out.txt"
    assert run(own, "--resume", "auto")[0] == 0
    assert sorted(path.name for path in folder.glob("*.pt")) == [f"model_checkpoint_{n}.pt" for n in (1, 2, 3)]


def test_a_full_disk_while_logs_are_written(own: dict[str, Any], run: Rml, tmp_path: Path):
    own["data"]["preload"] = False
    del own["checkpoints"], own["data"]["test_output_path"]
    assert run(own)[0] == 0
    own["num_epochs"] = 3
    status, _, errors = run(own, room=300)
    assert (status, errors) == (1, f"evaluate epoch 1: {tmp_path}/out_metrics.jsonl: File too large\n")
    assert (tmp_path / "out_metrics.jsonl").read_bytes() == b""
    assert [line.split()[:2] for line in (tmp_path / "out_train.txt").read_text().splitlines()] == [
        ["1", str(batch)] for batch in range(1, 7)
    ]
    assert run(own, room=30)[::2] == (1, f"train epoch 1: {tmp_path}/out_train.txt: File too large\n")
    assert (tmp_path / "out_train.txt").read_bytes() == b""


@pytest.mark.parametrize("room", [700, 3000], ids=["in the middle", "at the end"])
def test_a_full_disk_while_predictions_are_written(own: dict[str, Any], run: Rml, room: int, tmp_path: Path):
    del own["checkpoints"], own["outfile"]
    assert run(own)[0] == 0
    path = tmp_path / "predictions" / "output_1.h5"
    before = contents(tmp_path)
    assert run(own, room=room)[::2] == (1, f"evaluate epoch 1: {path}: File too large\n")
    assert contents(tmp_path) == before


def test_a_full_disk_while_samples_are_prepared(own: dict[str, Any], run: Rml, tmp_path: Path):
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "rml" / "prepared"
    assert run(own, room=2000) == (
        1,
        "",
        f"load training: samples cannot be prepared in {folder}: File too large; make room there, or set "
        "XDG_CACHE_HOME to another folder\n",
    )
    assert list(folder.iterdir()) == []


def test_a_full_disk_while_the_picture_is_written(own: dict[str, Any], run: Rml, tmp_path: Path):
    del own["checkpoints"], own["data"]["test_output_path"]
    assert run(own)[0] == 0
    before = (tmp_path / "out_report.png").read_bytes()
    status, _, errors = run(own, room=16_000)
    path = tmp_path / "out_report.png"
    assert (status, errors) == (1, f"{path}: File too large; all else that the run writes is there\n")
    assert path.read_bytes() == before
    assert unfinished(tmp_path) == []


# --- places


def test_places_that_cannot_be_written(own: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "file").touch()
    own["outfile"] = "file/out.txt"
    own["checkpoints"]["save"] = "/proc/nowhere/checkpoints"
    own["data"]["test_output_path"] = "file"
    remedy = "    choose another place, or make this one writable"
    refuses(
        own,
        f"neural_network.outfile: {tmp_path}/file/out_train.txt cannot be written: {tmp_path}/file is a file\n{remedy}",
        "neural_network.checkpoints.save: /proc/nowhere/checkpoints cannot be written: no such file or directory\n"
        f"{remedy}",
        f"neural_network.data.test_output_path: {tmp_path}/file cannot be written: file exists\n{remedy}",
    )


def test_a_folder_in_the_place_of_a_log_file(own: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "out_test.txt").mkdir()
    (tmp_path / "network.dot").mkdir()
    own["debug"] = True
    remedy = "    choose another place, or make this one writable"
    refuses(
        own,
        f"neural_network.outfile: {tmp_path}/out_test.txt cannot be written: is a directory\n{remedy}",
        f"neural_network.debug: {tmp_path}/network.dot cannot be written: is a directory\n{remedy}",
    )


def test_a_cache_that_cannot_be_written(own: dict[str, Any], run: Rml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    assert run(own) == (
        1,
        "",
        "load training: samples cannot be prepared in /proc/cache/rml/prepared: No such file or directory; make room "
        "there, or set XDG_CACHE_HOME to another folder\n",
    )


def test_two_runs_at_once(own: dict[str, Any], refuses: Any, run_file: Callable[..., Path], tmp_path: Path):
    """The second is refused for each place that the first writes to; the first goes on, unharmed."""
    own["num_epochs"] = 100_000
    own["checkpoints"]["keep"] = 2
    own["data"]["preload"] = False
    first = subprocess.Popen(
        [RML, "run", run_file({"neural_network": own}, "first.json"), "--untracked"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = tmp_path / "out_test.txt"
        until = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size):
            assert time.monotonic() < until
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGSTOP)
        remedy = "    wait until it has ended, or give this run a place of its own"
        places = {
            "outfile": f"neural_network.outfile: another run is writing to {tmp_path}/out_train.txt\n{remedy}",
            "save": f"neural_network.checkpoints.save: another run is writing to {tmp_path}/checkpoints\n{remedy}",
            "output": f"neural_network.data.test_output_path: another run is writing to {tmp_path}/predictions\n"
            f"{remedy}",
        }
        refuses(own, *places.values())
        for kept, problem in places.items():
            second = json.loads(json.dumps(own))
            if kept != "outfile":
                second["outfile"] = "second.txt"
            if kept != "save":
                del second["checkpoints"]
            if kept != "output":
                del second["data"]["test_output_path"]
            (tmp_path / "second_train.txt").touch()
            refuses(second, problem)
        os.kill(first.pid, signal.SIGCONT)
        first.terminate()
        output, errors = first.communicate(timeout=60)
    finally:
        first.kill()
        first.wait()
    path = tmp_path / "checkpoints" / "model_checkpoint_interrupted.pt"
    whole = not path.exists()
    assert first.returncode == 143, errors
    assert whole or errors == f"interrupted; --resume auto goes on from {path}\n"
    assert output.startswith(f"{CLASSES}epoch 1/100000  loss ")
    lines = [tuple(map(int, line.split()[:2])) for line in (tmp_path / "out_train.txt").read_text().splitlines()]
    assert lines == [(1 + index // 6, 1 + index % 6) for index in range(len(lines))]


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--ranks", 2), "--ranks: 2 ranks are not available yet\n    allowed: 1"),
        (("--ranks", 0), "--ranks: 0 ranks are not available yet\n    allowed: 1"),
        (("--app", "pde"), '--app: app "pde" is not available yet\n    allowed: dnn'),
        (("--app", "GAN"), '--app: app "gan" is not available yet\n    allowed: dnn'),
        (("--app", "dn"), '--app: unknown app "dn"\n    allowed: dnn\n    did you mean "dnn"?'),
        (("--resume", "3"), '--resume: "3" does not fit\n    allowed: auto, or left out to start anew'),
        (
            ("--set", "data.batch_size"),
            "--set data.batch_size: cannot be set\n    allowed: KEY=VALUE, as in data.batch_size=32",
        ),
        (
            ("--set", "data.batch_size.x=2"),
            "--set data.batch_size.x=2: cannot be set\n    allowed: KEY=VALUE, as in data.batch_size=32",
        ),
        (("--set", "=2"), "--set =2: cannot be set\n    allowed: KEY=VALUE, as in data.batch_size=32"),
        (
            ("--set", "data.batch_size=two"),
            'neural_network.data.batch_size: "two" does not fit\n    allowed: a valid integer',
        ),
        (
            ("--set", "checkpoints.intervall=2"),
            "neural_network.checkpoints.intervall: unknown key\n"
            "    allowed: save, interval, load, keep, best\n"
            '    did you mean "interval"?',
        ),
    ],
)
def test_bad_arguments(own: dict[str, Any], refuses: Any, arguments: tuple[object, ...], problem: str):
    refuses(own, problem, arguments=arguments)


def test_every_bad_argument_is_said_at_once(own: dict[str, Any], refuses: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RML_THREADS", "x")
    refuses(
        own,
        "--ranks: 2 ranks are not available yet\n    allowed: 1",
        'RML_THREADS: "x" does not fit\n    allowed: a number of threads, 1 or more',
        '--resume: "latest" does not fit\n    allowed: auto, or left out to start anew',
        arguments=("--ranks", 2, "--resume", "latest"),
    )


def test_a_scheduler_that_does_not_answer(own: dict[str, Any], run: Rml):
    status, output, errors = run(own, "--scheduler", "nonsense://here")
    assert (status, output) == (1, "")
    assert errors.startswith("load training: no Dask scheduler answers at nonsense://here (")
    assert len(errors.splitlines()) == 1
