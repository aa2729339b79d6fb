"""Whole runs on slices of volumes: every figure is that of a plain loop over slices that NumPy has cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rml_core.check import check
from rml_core.layers.build import build
from rml_core.run import read

Section = dict[str, Any]
Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPE = (9, 14, 12)
FLAT = [
    {"name": "xz", "sizes": [6, 1, 8], "padding": [1, 0, 1], "strides": [6, 5, 8], "padding_mode": "reflect"},
    {"name": "xy", "sizes": [1, 10, 10], "strides": [3, 10, 10], "transpose": True},
]
BRICKS = [{"sizes": [6, 6, 6], "strides": [5, 6, 6], "padded_sizes": [8, 6, 7], "padding_mode": "context"}]
RATE, BATCH, TEST_BATCH = 0.05, 4, 3


def volumes(folder: Path) -> dict[str, np.ndarray]:
    """`x` of two channels, `y` values, `m` classes of 0, 1, 2; in one HDF5 file, compressed."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *SHAPE)).astype(np.float32)
    found = {"x": x, "y": np.tanh(x[:1]), "m": np.digitize(x[0], [-0.5, 0.5]).astype(np.uint8)}
    with h5py.File(folder / "v.h5", "w") as file:
        for name, array in found.items():
            file.create_dataset(
                name, data=array, chunks=tuple(min(size, 5) for size in array.shape), compression="gzip"
            )
    return found


def section(slicers: list[Section], target: str, loss: Section, activation: str, channels: int) -> Section:
    rank = sum(size > 1 for size in slicers[0]["sizes"])
    config = {"filters": channels, "kernel_size": 3, "padding": "same", "activation": activation, "name": "conv"}
    data = {"type": "hdf5", "input_path": "v.h5:/x", "test_input_path": "v.h5:/x", "slicers": slicers}
    data |= {"target_path": f"v.h5:/{target}", "test_target_path": f"v.h5:/{target}", "target_is_mask": target == "m"}
    data |= {"batch_size": BATCH, "test_batch_size": TEST_BATCH, "shuffle": False}
    return {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": [{"class_name": f"Conv{rank}D", "config": config}],
        "data": data,
        "optimizer": {"type": "SGD", "learning_rate": RATE},
        "loss": loss,
    }


def nll(output: Tensor, target: Tensor, there: Tensor) -> Tensor:
    return F.nll_loss(output.movedim(1, -1)[there], target[there])


def mse(output: Tensor, target: Tensor, there: Tensor) -> Tensor:
    return F.mse_loss(output[:, 0][there], target[there])


def dice(output: Tensor, target: Tensor, there: Tensor) -> Tensor:
    p, t = output.movedim(1, -1)[there], F.one_hot(target[there], 3)
    return (1 - (2 * (p * t).sum(0) + 1e-6) / (p.sum(0) + t.sum(0) + 1e-6)).mean()


KINDS: dict[str, tuple[str, Section, str, int, Loss]] = {
    "nll": ("m", {"function": "NLL"}, "log_softmax", 3, nll),
    "dice": ("m", {"function": "Dice"}, "softmax", 3, dice),
    "mse": ("y", {"function": "MSE"}, "linear", 1, mse),
}


def batches(cut: Any, arrays: dict[str, np.ndarray], target: str, slicers: list[Section], size: int) -> list[Any]:
    """(inputs, targets, where they count) of a pass in the order of the slices."""
    found = []
    for slicer in slicers:
        inputs, targets = cut(arrays["x"], slicer), cut(arrays[target].reshape(1, *SHAPE), slicer)
        samples = [(inputs(n)[0], targets(n)[0][0], inputs(n)[1]) for n in range(inputs.count)]
        for at in range(0, len(samples), size):
            x, t, there = (np.stack(each) for each in zip(*samples[at : at + size], strict=True))
            t = t.astype(np.int64) if target == "m" else t
            found.append((torch.from_numpy(x), torch.from_numpy(t), torch.from_numpy(there)))
    return found


@pytest.mark.parametrize(("slicers", "preload"), [(FLAT, False), (BRICKS, True)], ids=["2D", "3D"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_bare_voxels(
    kind: str, slicers: list[Section], preload: bool, rml: Rml, run_file: RunFile, tmp_path: Path, cut_by_numpy: Any
):
    target, loss, activation, channels, plain = KINDS[kind]
    arrays, run = volumes(tmp_path), section(slicers, target, loss, activation, channels)
    run["data"]["preload"] = preload
    status, _, problems = rml("run", run_file({"neural_network": run}), "--untracked")
    assert (status, problems) == (0, "")
    checked = check(read({"neural_network": run}, tmp_path))
    network = build(checked.network, 0)
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    train = batches(cut_by_numpy, arrays, target, slicers, BATCH)
    test = batches(cut_by_numpy, arrays, target, slicers, TEST_BATCH)
    trained, tested = [], []
    for _ in range(2):
        for x, t, there in train:
            optimizer.zero_grad()
            value = plain(network(x), t, there)
            value.backward()
            optimizer.step()
            trained.append(value.item())
        with torch.no_grad():
            losses = [plain(network(x), t, there).item() * len(x) for x, t, there in test]
            outputs = [network(x) for x, _, _ in test]
        counts = sum(len(x) for x, _, _ in test)
        tested.append((sum(losses) / counts, accuracy(outputs, test) if target == "m" else np.nan))
    logged = np.loadtxt(tmp_path / "out_train.txt")
    np.testing.assert_allclose(logged[:, 3], trained, rtol=2e-5)
    assert logged[:, 1].tolist() == [*range(1, len(train) + 1)] * 2
    figures = np.loadtxt(tmp_path / "out_test.txt")
    np.testing.assert_allclose(figures[:, 2:], tested, rtol=2e-5)


def accuracy(outputs: list[Tensor], test: list[Any]) -> float:
    """Dice of the classes over all voxels that count."""
    predicted = torch.cat([output.argmax(1)[there] for output, (_, _, there) in zip(outputs, test, strict=True)])
    truth = torch.cat([t[there] for _, t, there in test])
    both = [((predicted == c) & (truth == c)).sum() for c in range(3)]
    sums = [(predicted == c).sum() + (truth == c).sum() for c in range(3)]
    return float(np.mean([2 * one / total for one, total in zip(both, sums, strict=True) if total]))


RANDOM = [{"random_horizontal_flip": 0.5}, {"random_rotate": 30}, {"normalize": {"mean": 0.1, "std": 2}}]


def test_neither_preloading_nor_threads_change_a_bit(run: Any, assert_same: Any, tmp_path: Path, monkeypatch: Any):
    volumes(tmp_path)
    whole = section(FLAT, "m", {"function": "NLL"}, "log_softmax", 3)
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        whole["data"][key] = str(tmp_path / whole["data"][key])
    whole |= {"num_epochs": 3, "checkpoints": {"save": "checkpoints"}}
    whole["data"] |= {"transforms": RANDOM, "shuffle": True}
    for name, preload, threads in (("one", False, "1"), ("three", False, "3"), ("held", True, "2")):
        monkeypatch.setenv("RML_THREADS", threads)
        monkeypatch.setenv("RML_MEMORY", "1MiB" if name == "three" else "1GB")
        whole["data"]["preload"] = preload
        run(whole, name)
    assert_same(tmp_path / "one", tmp_path / "three")
    assert_same(tmp_path / "one", tmp_path / "held")


def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_with_the_same_bits(
    classification: Section, begin: Any, assert_same: Any, tmp_path: Path
):
    volumes(tmp_path)
    whole = section(FLAT, "y", {"function": "MSE"}, "linear", 1)
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        whole["data"][key] = str(tmp_path / whole["data"][key])
    whole |= {"num_epochs": 3, "checkpoints": {"save": "checkpoints"}}
    whole["data"] |= {"transforms": RANDOM, "shuffle": True}
    classification["neural_network"] = whole
    begin("whole")
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", before="train epoch 2")
    begin("stopped", resuming="auto")
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_predictions_of_slices_lie_in_the_groups_of_their_sets(
    rml: Rml, run_file: RunFile, tmp_path: Path, cut_by_numpy: Any
):
    x = volumes(tmp_path)["x"]
    data = {"type": "hdf5", "test_input_path": "v.h5:/x", "test_output_path": "out", "slicers": FLAT}
    layers = [{"class_name": "Activation", "config": {"activation": "linear"}}]
    assert rml("run", run_file({"neural_network": {"layers": layers, "data": data}}), "--untracked")[0] == 0
    with h5py.File(tmp_path / "out/output_1.h5") as file:
        assert set(file) == {"xz", "xy"}
        for slicer in FLAT:
            cut = cut_by_numpy(x, slicer)
            assert list(file[slicer["name"]]) == [f"{number:05}" for number in range(cut.count)]
            for number in range(cut.count):
                np.testing.assert_array_equal(file[f"{slicer['name']}/{number:05}"][...], cut(number)[0])


@pytest.mark.parametrize(
    ("preload", "stride", "outfile"),
    [(False, 1, None), (True, 1, None), (False, 1, "prediction.h5"), (False, 3, "prediction.h5")],
)
def test_nan_values_are_said_once(
    rml: Rml, run_file: RunFile, tmp_path: Path, preload: bool, stride: int, outfile: str | None
):
    """Of what is predicted alone, whether slices of a line are read together or each by itself."""
    array = np.ones((4, 6, 6), np.float32)
    array[1:3, 2, 2] = np.nan
    np.save(tmp_path / "x.npy", array)
    slicers = [{"sizes": [3, 3, 3], "strides": [stride] * 3}]
    data = {"type": "numpy", "test_input_path": "x.npy", "slicers": slicers, "preload": preload}
    data |= {"hdf5_outfile": outfile} if outfile else {}
    layers = [{"class_name": "Activation", "config": {"activation": "linear"}}]
    status, _, said = rml("run", run_file({"neural_network": {"layers": layers, "data": data}}), "--untracked")
    assert (status, said) == (0, f"warning: {tmp_path}/x.npy has 2 nan values\n")


def test_training_goes_on_until_the_loss_is_nan_and_names_the_slice(rml: Rml, run_file: RunFile, tmp_path: Path):
    array = np.ones((8, 6, 6), np.float32)
    np.save(tmp_path / "y.npy", array)
    array[5, 2, 2] = np.nan
    np.save(tmp_path / "x.npy", array)
    data = {"type": "numpy", "input_path": "x.npy", "target_path": "y.npy", "batch_size": 1, "shuffle": False}
    data["slicers"] = [{"name": "tiles", "sizes": [1, 6, 6]}]
    layers = [{"class_name": "Conv2D", "config": {"filters": 1, "kernel_size": 1}}]
    whole = {"outfile": "out.txt", "layers": layers, "data": data, "loss": {"function": "MSE"}}
    whole["optimizer"] = {"type": "SGD", "learning_rate": 0.01}
    status, _, said = rml("run", run_file({"neural_network": whole}), "--untracked")
    assert status == 1
    assert said == (
        "train epoch 1: the loss became nan in epoch 1, batch 6: "
        f"tiles/00005 ([5:6, 0:6, 0:6] of {tmp_path}/x.npy) has numbers that are nan or infinite: "
        "mend them or leave them out\n"
    )
    assert len(np.loadtxt(tmp_path / "out_train.txt")) == 6
