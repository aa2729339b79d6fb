"""Whole runs whose inputs and targets lie in files of every type, and of every pair of types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from flows.phases import Outcome
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.config.problem import Refused
from rml_core.run import read

Section = dict[str, Any]
Run = Callable[..., Outcome]
Save = Callable[[str, Path, dict[str, Any]], None]

# How each type is written: what the saver is called, and the name of what it writes.
FILES = {
    "images": ("images", "{}"),
    "numpy": ("npy", "{}"),
    "npz": ("npz", "{}.npz"),
    "hdf5": ("hdf5", "{}.h5"),
    "zarr": ("zarr3", "{}.zarr"),
    "mnist": ("idx", "{}.idx"),
}
VALUES, MASKS, LABELS = "values", "masks", "labels"
# input type, target type (as above; "itself": the inputs again), what the targets are
PAIRS = [
    ("images", "images", VALUES),
    ("images", "images", MASKS),
    ("images", "labels", LABELS),
    ("images", "numpy", VALUES),
    ("images", "hdf5", MASKS),
    ("images", "itself", VALUES),
    ("numpy", "numpy", VALUES),
    ("numpy", "images", MASKS),
    ("numpy", "labels", LABELS),
    ("numpy", "itself", VALUES),
    ("numpy", "mnist", LABELS),
    ("npz", "npz", VALUES),
    ("npz", "npz", LABELS),
    ("npz", "hdf5", MASKS),
    ("hdf5", "hdf5", VALUES),
    ("hdf5", "hdf5", MASKS),
    ("hdf5", "labels", LABELS),
    ("hdf5", "itself", VALUES),
    ("hdf5", "npz", MASKS),
    ("zarr", "zarr", VALUES),
    ("zarr", "zarr", MASKS),
    ("zarr", "labels", LABELS),
    ("zarr", "images", VALUES),
    ("zarr", "itself", VALUES),
    ("mnist", "mnist", LABELS),
    ("mnist", "mnist", VALUES),
    ("mnist", "images", MASKS),
    ("mnist", "numpy", VALUES),
]


def layer(name: str, **config: Any) -> Section:
    return {"class_name": name, "config": {"name": name.lower(), **config}}


NETWORKS: dict[str, tuple[list[Section], str]] = {
    VALUES: ([layer("Conv2D", filters=1, kernel_size=3, padding="same")], "MSE"),
    MASKS: ([layer("Conv2D", filters=2, kernel_size=1, activation="log_softmax")], "NLL"),
    LABELS: ([layer("Flatten"), layer("Dense", units=2, activation="log_softmax")], "NLL"),
}


def samples(count: int, seed: int) -> dict[str, np.ndarray]:
    """Bytes of 1 x 6 x 8; those of the second half, `dogs`, are brighter."""
    random = np.random.default_rng(seed)
    return {
        f"{kind}/{i}": random.integers(low, low + 100, (1, 6, 8), np.uint8)
        for kind, low in (("cats", 0), ("dogs", 120))
        for i in range(count)
    }


def targets_of(inputs: dict[str, np.ndarray], what: str) -> dict[str, Any]:
    if what == LABELS:
        return {name: np.uint8(name.startswith("dogs")) for name in inputs}
    if what == MASKS:
        return {name: (array > 110).astype(np.uint8) * 200 for name, array in inputs.items()}
    return {name: 255 - array for name, array in inputs.items()}


def section_of(folder: Path, save: Save, given: str, target: str, what: str) -> Section:
    """Writes the files; gives a run file of two epochs on them."""
    data: Section = {"input_type": "numpy" if given == "npz" else given, "batch_size": 4, "test_batch_size": 3}
    data |= {"grayscale": True} if "images" in (given, target) and given != "mnist" else {}
    for role, seed in (("", 1), ("test_", 2)):
        saver, name = FILES[given]
        inputs = samples(3, seed)
        path = folder / name.format(f"{role}inputs")
        save(saver, path, inputs)
        data[f"{role}input_path"] = str(path)
        if target == "labels":
            continue
        if target != "itself":
            saver, name = FILES[target]
            path = folder / name.format(f"{role}targets")
            save(saver, path, targets_of(inputs, what))
        data[f"{role}target_path"] = str(path)
    data["target_type"] = {"itself": data["input_type"], "npz": "numpy"}.get(target, target)
    if what == MASKS or (what == LABELS and target in ("npz", "hdf5")):
        data["target_is_mask"] = True
    if target == "labels":
        data.pop("target_is_mask", None)
    if given != "images" and target != "images":
        data.pop("grayscale", None)
    if target == "images" and given != "images":
        data.pop("grayscale", None)
        data["target_grayscale"] = True
    layers, loss = NETWORKS[what]
    return {
        "num_epochs": 2,
        "layers": layers,
        "data": {
            **data,
            "test_output_path": "predictions",
            "transforms": [{"normalize": {"mean": 0.5, "std": 50.0}}]
            if what == LABELS
            else [{"random_horizontal_flip": 0.5}, {"normalize": {"mean": 0.5, "std": 50.0}}],
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.001},
        "loss": {"function": loss},
        "checkpoints": {"save": "checkpoints"},
    }


def left(folder: Path) -> dict[str, np.ndarray]:
    """All weights and all predictions of a run."""
    found: dict[str, np.ndarray] = {
        f"weights {name}": value.numpy()
        for name, value in native.read(folder / "checkpoints" / "model_checkpoint_2.pt", "")["network"].items()
    }

    def keep(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            assert node.dtype == np.float32
            found[name] = node[()]

    with h5py.File(folder / "predictions" / "output_2.h5") as file:
        file.visititems(keep)
    return found


@pytest.mark.parametrize(("given", "target", "what"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_preloaded_or_not_gives_the_same_bits(
    run: Run, tmp_path: Path, save_arrays: Save, given: str, target: str, what: str
):
    """And they are those of the same numbers in NumPy files, which are held against torch below."""
    section = section_of(tmp_path / "data", save_arrays, given, target, what)
    results = []
    for preload in (False, True):
        section["data"]["preload"] = preload
        outcome = run(section, f"preload {preload}")
        results.append(left(tmp_path / f"preload {preload}"))
        assert np.isfinite(outcome.history[-1]["test_loss"])
    one, other = results
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
    names = [name for name in one if not name.startswith("weights")]
    file = FILES[given][1].format("test_inputs")
    expected = {
        "images": [f"{name}.png" for name in samples(3, 2)],
        "numpy": [f"{name}.npy" for name in samples(3, 2)],
        "mnist": [f"{number:05d}" for number in range(6)],
    }.get(given, [f"{file}/{name}" for name in samples(3, 2)])
    assert names == expected


def test_the_loss_is_torch_s(run: Run, tmp_path: Path, save_arrays: Save):
    """Regression from HDF5 volumes of int16 to vectors in an archive: loss, MAE and RMSE of the saved weights."""
    random = np.random.default_rng(0)
    inputs = {f"s{i}": random.integers(-9, 9, (2, 3, 4, 5)).astype(">i2") for i in range(8)}
    targets = {name: array.mean((1, 2, 3)).astype(np.float16) for name, array in inputs.items()}
    save_arrays("hdf5", tmp_path / "x.h5", inputs)
    save_arrays("compressed", tmp_path / "y.npz", targets)
    section = {
        "outfile": "out.txt",
        "layers": [
            {"class_name": "GlobalAveragePooling3D", "config": {"name": "mean"}},
            {"class_name": "Dense", "config": {"name": "dense", "units": 2}},
        ],
        "data": {
            "input_type": "hdf5",
            "target_type": "numpy",
            "input_path": str(tmp_path / "x.h5"),
            "target_path": str(tmp_path / "y.npz"),
            "test_input_path": str(tmp_path / "x.h5"),
            "test_target_path": str(tmp_path / "y.npz"),
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.1},
        "loss": {"function": "MSE"},
        "checkpoints": {"save": "checkpoints"},
    }
    outcome = run(section)
    weights = native.read(tmp_path / "run" / "checkpoints" / "model_checkpoint_1.pt", "")["network"]
    means = torch.tensor(np.stack([array.astype(np.float32).mean((1, 2, 3)) for array in inputs.values()]))
    output = means @ weights["dense.weight"].T + weights["dense.bias"]
    error = output - torch.tensor(np.stack(list(targets.values())).astype(np.float32))
    figures = outcome.history[-1]
    assert figures["test_loss"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert figures["mae"] == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert figures["rmse"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-5)


def test_classes_of_arrays_are_judged_by_their_accuracy(run: Run, tmp_path: Path, save_arrays: Save):
    section = section_of(tmp_path / "data", save_arrays, "npz", "npz", LABELS)
    outcome = run(section)
    with h5py.File(tmp_path / "run" / "predictions" / "output_2.h5") as file:
        chosen = {name: file[f"test_inputs.npz/{name}"][()].argmax() for name in samples(3, 2)}
    right = np.mean([chosen[name] == name.startswith("dogs") for name in chosen])
    assert outcome.history[-1]["accuracy"] == pytest.approx(right)


def split_section(folder: Path, save: Save) -> Section:
    save("npy", folder / "in", samples(10, 1))
    return {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": NETWORKS[LABELS][0],
        "data": {
            "input_type": "numpy",
            "target_type": "labels",
            "input_path": str(folder / "in"),
            "validation_split": 0.3,
            "test_output_path": "predictions",
            "batch_size": 5,
            "transforms": [{"normalize": {"std": 100.0}}, {"random_horizontal_flip": 0.5}],
        },
        "optimizer": {"type": "SGD"},
        "loss": {"function": "NLL"},
        "checkpoints": {"save": "checkpoints"},
        "early_stopping": {"patience": 2},
    }


def test_samples_held_out(
    run: Run, tmp_path: Path, save_arrays: Save, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """The same ones whatever is preloaded, however many threads there are, and after a resume."""
    section = split_section(tmp_path / "data", save_arrays)
    results = []
    for name, preload, threads in (("a", False, "1"), ("b", True, "3")):
        monkeypatch.setenv("RML_THREADS", threads)
        section["data"]["preload"] = preload
        with caplog.at_level("INFO", "rml"):
            run(section, name)
        results.append(left(tmp_path / name))
    assert [line for line in caplog.messages if "held out" in line] == [
        "6 of 20 training samples are held out for evaluation"
    ] * 2
    held = [name for name in results[0] if name.endswith(".npy")]
    assert len(held) == 6
    assert sum(name.startswith("cats") for name in held) == 3
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])
    # Fourteen samples, five a batch.
    assert (tmp_path / "a" / "out_train.txt").read_text().count("\n") == 2 * 3
    assert (tmp_path / "a" / "out_test.txt").read_text().count("\n") == 2
    section["num_epochs"] = 3
    section["checkpoints"]["resume"] = "auto"
    run(section, "a")
    with h5py.File(tmp_path / "a" / "predictions" / "output_3.h5") as file:
        assert sorted(f"{kind}/{name}" for kind in file for name in file[kind]) == sorted(held)
    section["data"]["validation_split"] = 0.2
    with pytest.raises(Refused, match=r"data.validation_split was 0.3 and is 0.2"):
        run(section, "a")


def test_the_plan_counts_what_is_held_out(tmp_path: Path, save_arrays: Save):
    from flows.plan import plan

    section = split_section(tmp_path, save_arrays)
    planned = plan(check(read({"neural_network": section}, tmp_path))).as_json()
    assert planned["samples"] == {"train": 14, "test": 6}
    assert planned["batches"] == {"train": 3, "test": 1}
    assert planned["phases"][:2] == [{"name": "load training", "kind": "load"}, {"name": "load test", "kind": "load"}]


def test_a_split_that_leaves_nothing_is_refused(tmp_path: Path, save_arrays: Save):
    section = split_section(tmp_path, save_arrays)
    section["data"]["validation_split"] = 0.99
    with pytest.raises(Refused) as refused:
        check(read({"neural_network": section}, tmp_path))
    assert str(refused.value) == (
        "neural_network.data.validation_split: 0.99 of 20 training samples: 20 held out leave 0 to train on\n"
        "    allowed: at least one sample on each side"
    )
