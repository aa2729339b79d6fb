"""Slice sets held against the network, the loss and what is assembled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from rml_core.check import check, check_without_data
from rml_core.config.problem import Refused
from rml_core.config.target import Target
from rml_core.run import read

Section = dict[str, Any]

DATA = "neural_network.data"
SETS = [{"name": "rows", "sizes": [1, 6, 4]}, {"name": "columns", "sizes": [8, 1, 4]}]


def layer(kind: str, **config: Any) -> Section:
    return {"class_name": kind, "config": {"name": "a_layer", **config}}


CONV = layer("Conv2D", filters=2, kernel_size=3, padding="same", activation="log_softmax")
SHRINKING = layer("Conv2D", filters=2, kernel_size=3, activation="log_softmax")


@pytest.fixture
def section(tmp_path: Path) -> Section:
    """Trains on one volume, 8 x 6 x 4, and assembles the predictions of another."""
    for name, shape, dtype in (("v", (3, 8, 6, 4), "f4"), ("m", (8, 6, 4), "u1"), ("w", (3, 9, 7, 4), "f4")):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, dtype))
    np.save(tmp_path / "n.npy", np.zeros((9, 7, 4), "u1"))
    paths = {"input_path": "v", "target_path": "m", "test_input_path": "w", "test_target_path": "n"}
    data = {key: str(tmp_path / f"{name}.npy") for key, name in paths.items()}
    outfile = str(tmp_path / "prediction.h5")
    return {
        "layers": [CONV],
        "data": {"type": "numpy", "target_is_mask": True, "slicers": SETS, "hdf5_outfile": outfile, **data},
        "optimizer": {"type": "Adam"},
        "loss": {"function": "NLL"},
    }


def refused(section: Section, checked: Callable[..., Any] = check) -> str:
    with pytest.raises(Refused) as refusal:
        checked(read({"neural_network": section}))
    return str(refusal.value)


def test_sets_of_several_sizes_and_volumes(section: Section):
    checked = check(read({"neural_network": section}))
    assert checked.training is not None
    assert checked.test is not None
    assert (checked.training.count, checked.test.count) == (8 + 6, 9 * 2 + 7 * 2)
    assert checked.network.input_shape == (3, None, 4)
    assert checked.network.output_shape == (2, None, 4)
    assert checked.target == Target("mask", (None, 4))
    assert checked.fitted is not None
    assert checked.warnings == ()
    assert not checked.transforms_first


def test_leading_transforms_are_not_stored_for_slices(section: Section):
    section["data"] |= {"preload": True, "transforms": [{"resize": [4, 4]}]}
    del section["data"]["hdf5_outfile"]
    checked = check(read({"neural_network": section}))
    assert checked.network.input_shape == (3, 4, 4)
    assert not checked.transforms_first


def test_a_network_that_changes_the_geometry(section: Section):
    section["layers"] = [SHRINKING]
    where = f"{DATA}.hdf5_outfile"
    said = (
        "    allowed: a network that changes the channels alone\n"
        "    let the last layer give the size of the slices, or leave hdf5_outfile out"
    )
    del section["data"]["target_path"]
    del section["data"]["test_target_path"]
    for key in ("input_path", "target_is_mask"):
        del section["data"][key]
    assert refused(section) == (
        f"{where}: of slices (3, 6, 4) of rows the network makes (2, 4, 2), channels first\n{said}\n"
        f"{where}: of slices (3, 8, 4) of columns the network makes (2, 6, 2), channels first\n{said}"
    )
    del section["data"]["hdf5_outfile"]
    assert check(read({"neural_network": section})).network.output_shape == (2, None, 2)


def test_a_network_of_another_rank(section: Section):
    section["layers"] = [layer("Flatten"), {"class_name": "Dense", "config": {"units": 2}}]
    section["data"] = {
        key: section["data"][key] for key in ("type", "test_input_path", "hdf5_outfile")
    } | {"slicers": SETS[:1]}  # fmt: skip
    assert refused(section).startswith(
        f"{DATA}.hdf5_outfile: of slices (3, 6, 4) of rows the network makes (2,), channels first\n"
    )


def test_each_set_is_held_against_the_loss(section: Section):
    section["layers"] = [SHRINKING]
    del section["data"]["hdf5_outfile"]
    said = "neural_network.loss: NLL cannot compare the network's output {} with the targets, one class a pixel of {}"
    remedy = "    let the last layer's height, width and so on be {}"
    each = (("(2, 4, 2)", "(6, 4)"), ("(2, 6, 2)", "(8, 4)"))
    assert refused(section) == "\n".join(
        said.format(output, target) + "\n" + remedy.format(target) for output, target in each
    )


def test_sets_that_need_other_weights(section: Section):
    flat = [
        layer("Flatten"),
        {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
    ]
    section["layers"] = flat
    for key in ("hdf5_outfile", "target_path", "test_target_path", "input_path", "target_is_mask"):
        del section["data"][key]
    assert refused(section) == (
        f'{DATA}.slicers[1].sizes: layer "dense" needs other weights for slices (3, 8, 4) of columns than for '
        "(3, 6, 4) of rows\n"
        "    allowed: slices of one size in all sets\n"
        "    pad the sets to one size with padded_sizes, or end the network with a global pooling"
    )
    section["data"]["slicers"] = [{**SETS[0], "padded_sizes": [1, 8, 4]}, SETS[1]]
    assert check(read({"neural_network": section})).network.input_shape == (3, 8, 4)


def test_a_set_that_the_network_does_not_take(section: Section):
    section["layers"] = [
        layer("InputLayer", batch_input_shape=[None, 6, 4, 3]),
        {"class_name": "Conv2D", "config": {"filters": 2, "kernel_size": 1, "activation": "log_softmax"}},
    ]
    assert refused(section) == (
        "neural_network.layers: the network's input is (6, 4, 3), channels last, but the samples are (8, 4, 3)\n"
        "    write null for the sizes that may vary, or make the samples fit"
    )


def u_net(joined: bool) -> list[Section]:
    """Halves twice, and doubles twice; `joined`: what is doubled goes beside what was halved."""
    names = ["first", "half", "quarter", "double", "whole"]
    layers = [
        {"class_name": "Conv2D", "config": {"name": "first", "filters": 2, "kernel_size": 1}},
        {"class_name": "MaxPooling2D", "config": {"name": "half"}},
        {"class_name": "MaxPooling2D", "config": {"name": "quarter"}},
        {"class_name": "UpSampling2D", "config": {"name": "double"}},
        {"class_name": "UpSampling2D", "config": {"name": "whole"}},
    ]
    if joined:
        inbound = [[[name, 0, 0] for name in (names[0], names[-1])]]
        layers.append({"class_name": "Concatenate", "config": {"name": "join"}, "inbound_nodes": inbound})
    last = {"name": "last", "filters": 2, "kernel_size": 1, "activation": "log_softmax"}
    return [*layers, {"class_name": "Conv2D", "config": last}]


@pytest.mark.parametrize("checked", [check, check_without_data])
def test_padding_that_the_network_takes(section: Section, checked: Callable[..., Any]):
    section["layers"] = [
        {"class_name": "InputLayer", "config": {"name": "input", "batch_input_shape": [None, None, None, 3]}},
        *u_net(joined=True),
    ]
    section["data"]["slicers"] = [{"name": "rows", "sizes": [1, 6, 4]}, {**SETS[1], "transpose": True}]
    assert refused(section, checked) == (
        'neural_network.layers[6]: layer "join" (Concatenate): its inputs (6, 4, 2) and (4, 4, 2) differ in more than '
        "the axis it joins, -1\n"
        "    sizes that are divisible by all the strides before, or cropping or padding\n"
        f"{DATA}.slicers[0]: the network does not take slices (3, 6, 4) of rows\n"
        '    it does with "padded_sizes": [1, 8, 4]'
    )
    section["data"]["slicers"][0] |= {"padded_sizes": [1, 8, 4]}
    checked(read({"neural_network": section}))
    section["layers"][1:] = u_net(joined=False)
    section["data"]["slicers"] = [{"name": "columns", "sizes": [7, 1, 4], "transpose": True}]
    del section["data"]["target_path"], section["data"]["test_target_path"]
    for key in ("input_path", "target_is_mask"):
        del section["data"][key]
    assert refused(section, checked) == (
        f"{DATA}.hdf5_outfile: of slices (3, 4, 7) of columns the network makes (2, 4, 4), channels first\n"
        "    allowed: a network that changes the channels alone\n"
        '    set "padded_sizes": [8, 1, 4], or leave hdf5_outfile out'
    )


def test_channels_of_the_two_volumes(section: Section, tmp_path: Path):
    np.save(tmp_path / "w.npy", np.zeros((2, 9, 7, 4), "f4"))
    assert refused(section) == (
        f"{DATA}.test_input_path: {tmp_path}/w.npy has 2 channels, and the training array {tmp_path}/v.npy has 3\n"
        "    allowed: as many channels in both"
    )


@pytest.mark.parametrize(
    ("layers", "sizes", "example"),
    [
        ([layer("Conv3D", filters=1, kernel_size=3, padding="same")], [24, 24], [24, 24, 24]),
        ([layer("Conv2D", filters=1, kernel_size=3, batch_input_shape=[None, 24, 24, 1])], [24, 24], [1, 24, 24]),
        ([layer("Conv1D", filters=1, kernel_size=3)], [1, 24], None),
    ],
)
def test_sizes_that_lack_an_axis(tmp_path: Path, layers: list[Section], sizes: list[int], example: list[int] | None):
    np.save(tmp_path / "v.npy", np.zeros((70, 61, 57), "u1"))
    data = {"input_type": "numpy", "test_input_path": f"{tmp_path}/v.npy", "slicers": [{"sizes": sizes}]}
    section = {"layers": layers, "data": data}
    if example is None:
        assert check(read({"neural_network": section})).network.input_shape == (70, 24)
        return
    assert refused(section) == (
        f"{DATA}.slicers[0].sizes: {sizes} has 2 numbers, and {tmp_path}/v.npy has 3 axes, (70, 61, 57): the first "
        f"counts as 70 channels\n    write 3 numbers, as {example}"
    )


@pytest.mark.parametrize("classes", [255, 256])
def test_classes_that_are_bytes(section: Section, classes: int):
    section["layers"] = [layer("Conv2D", filters=classes, kernel_size=1, activation="log_softmax")]
    section["data"]["hdf5_output"] = "argmax"
    if classes == 255:
        check(read({"neural_network": section}))
        return
    assert refused(section) == (
        f"{DATA}.hdf5_output: the network gives 256 classes, and they are written as bytes\n"
        '    allowed: at most 255 classes\n    or "hdf5_output": "values"'
    )


@pytest.mark.parametrize(
    ("outfile", "file"),
    [
        ("w.npy", "w.npy"),
        ("n.npy", "n.npy"),
        ("v.npy", "v.npy"),
        ("m.npy", "m.npy"),
        ("./runs/../w.npy", "w.npy"),
        ("link.h5", "n.npy"),
        ("folder/w.npy", "w.npy"),
        ("file://{}/w.npy", "w.npy"),
    ],
)
def test_the_outfile_is_not_what_is_read(section: Section, tmp_path: Path, outfile: str, file: str):
    (tmp_path / "link.h5").symlink_to("n.npy")
    (tmp_path / "folder").symlink_to(".")
    place = outfile.format(tmp_path) if "{" in outfile else f"{tmp_path}/{outfile}"
    section["data"]["hdf5_outfile"] = place
    assert refused(section) == (
        f"{DATA}.hdf5_outfile: {tmp_path}/{file} is read: slices are cut from it\n    allowed: another file"
    )


@pytest.mark.parametrize("named", ["../w.h5:/scan", "link.h5:/scan", "{}/w.h5:/scan"])
@pytest.mark.parametrize("outfile", ["../w.h5", "{}/runs/../w.h5"])
def test_the_outfile_is_not_the_file_of_a_dataset(section: Section, tmp_path: Path, named: str, outfile: str):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/link.h5").symlink_to("../w.h5")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["scan"], file["other"] = np.zeros((3, 9, 7, 4), "f4"), np.zeros(3)
    data = {"test_input_path": named.format(tmp_path), "hdf5_outfile": outfile.format(tmp_path)}
    for key in ("input_path", "target_path", "test_target_path", "target_is_mask", "type"):
        del section["data"][key]
    section["data"] |= {"input_type": "hdf5", **data}
    (tmp_path / "runs/run.json").write_text(json.dumps({"neural_network": section}))
    with pytest.raises(Refused) as refusal:
        check(read(str(tmp_path / "runs/run.json")))
    read_as = tmp_path / ("runs/link.h5" if "link" in named else "w.h5")
    assert str(refusal.value) == (
        f"{DATA}.hdf5_outfile: {read_as} is read: slices are cut from it\n    allowed: another file"
    )


@pytest.mark.parametrize("outfile", ["s.zarr", "s.zarr/p.h5", "link/deep/p.h5"])
def test_the_outfile_does_not_lie_in_a_store(section: Section, tmp_path: Path, outfile: str):
    zarr.create_array(str(tmp_path / "s.zarr"), data=np.zeros((3, 9, 7, 4), "f4"))
    (tmp_path / "link").symlink_to("s.zarr")
    for key in ("input_path", "target_path", "test_target_path", "target_is_mask", "type"):
        del section["data"][key]
    place = f"{tmp_path}/{outfile}"
    section["data"] |= {"input_type": "zarr", "test_input_path": f"{tmp_path}/s.zarr", "hdf5_outfile": place}
    if outfile == "s.zarr":
        what, allowed = f"{place} is read: slices are cut from it", "another file"
    else:
        what = f"{place} would lie in {tmp_path}/s.zarr, which is read: slices are cut from it"
        allowed = "a place outside of it"
    assert refused(section) == f"{DATA}.hdf5_outfile: {what}\n    allowed: {allowed}"


def test_the_outfile_is_not_what_weights_are_loaded_from(section: Section, tmp_path: Path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        kernel, bias = np.zeros((3, 3, 3, 2), "f4"), np.zeros(2, "f4")
        group = file.create_group("a_layer")
        group["a_layer/kernel:0"], group["a_layer/bias:0"] = kernel, bias
        group.attrs["weight_names"] = [b"a_layer/kernel:0", b"a_layer/bias:0"]
        file.attrs["layer_names"] = [b"a_layer"]
    section["checkpoints"] = {"load": f"{tmp_path}/weights.h5"}
    section["data"]["hdf5_outfile"] = f"{tmp_path}/./weights.h5"
    assert refused(section) == (
        f"{DATA}.hdf5_outfile: {tmp_path}/weights.h5 is read: the weights are loaded from it\n    allowed: another file"
    )


LOG, OUTPUT = "goes with outfile", "test_output_path has such names"
SAVED = "checkpoints.save has such names"


@pytest.mark.parametrize(
    ("outfile", "why"),
    [
        ("run.json", "is read: it is the run file"),
        ("net.json", "is read: the layers are in it"),
        ("logs/out_train.txt", f"is written, too: it {LOG}"),
        ("logs/../logs/out_test.txt", f"is written, too: it {LOG}"),
        ("logs/out_metrics.jsonl", f"is written, too: it {LOG}"),
        ("linked/out_report.png", f"is written, too: it {LOG}"),
        ("predictions/output_1.h5", f"is written, too: {OUTPUT}"),
        ("saved/model_checkpoint_12.pt", f"is written, too: {SAVED}"),
        ("saved/model_checkpoint_best.pt", f"is written, too: {SAVED}"),
        ("saved/model_checkpoint_interrupted.pt", f"is written, too: {SAVED}"),
        ("predictions/outputs.h5", None),
        ("saved/output_1.h5", None),
    ],
)
def test_the_outfile_is_no_other_file_of_the_run(section: Section, tmp_path: Path, outfile: str, why: str | None):
    (tmp_path / "logs").mkdir()
    (tmp_path / "linked").symlink_to("logs")
    (tmp_path / "net.json").write_text(json.dumps([CONV]))
    section |= {"layers": "net.json", "outfile": "logs/out.txt", "checkpoints": {"save": "saved"}}
    section["data"] |= {"hdf5_outfile": outfile, "test_output_path": "predictions"}
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"neural_network": section}))
    if why is None:
        check(read(str(file)))
        return
    with pytest.raises(Refused) as refusal:
        check(read(str(file)))
    place = tmp_path / outfile.replace("logs/../", "").replace("linked/", "logs/")
    assert str(refusal.value) == f"{DATA}.hdf5_outfile: {place} {why}\n    allowed: another file"


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file/p.h5", "{}/file is a file"),
        ("file/deep/p.h5", "{}/file is a file"),
        ("folder.h5", "is a directory"),
        ("/proc/nowhere/p.h5", "no such file or directory"),
    ],
)
def test_the_outfile_has_a_place(section: Section, tmp_path: Path, place: str, why: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder.h5").mkdir()
    path = place if place.startswith("/") else f"{tmp_path}/{place}"
    section["data"]["hdf5_outfile"] = path
    assert refused(section) == (
        f"{DATA}.hdf5_outfile: {path} cannot be written: {why.format(tmp_path)}\n"
        "    choose another place, or make this one writable"
    )


def test_nothing_is_left_where_a_place_was_tried(section: Section, tmp_path: Path):
    section["data"]["hdf5_outfile"] = f"{tmp_path}/a/b/p.h5"
    before = {path.name for path in tmp_path.iterdir()}
    check(read({"neural_network": section}))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_training_needs_targets(section: Section):
    for key in ("target_path", "test_target_path", "target_is_mask"):
        del section["data"][key]
    missing = "is missing: training needs targets"
    assert refused(section) == f"{DATA}.target_path: {missing}\n    name the file that has them"
    section["data"]["input_type"] = section["data"].pop("type")
    remedy = "    what the array in target_path is; it is cut as the inputs are"
    assert refused(section) == f"{DATA}.target_type: {missing}\n{remedy}"


def test_problems_of_both_volumes_at_once(section: Section, tmp_path: Path):
    np.save(tmp_path / "m.npy", np.zeros((8, 6, 5), "u1"))
    np.save(tmp_path / "w.npy", np.zeros((9, 7), "f4"))
    section["optimizer"] = {"type": "Adam", "learning_rate": 0.1}
    assert refused(section) == (
        f"{DATA}.target_path: {tmp_path}/v.npy is 8 x 6 x 4, and its targets in {tmp_path}/m.npy 8 x 6 x 5\n"
        "    allowed: arrays of one shape, channels apart\n"
        f"{DATA}.test_input_path: {tmp_path}/w.npy has 2 axes, its shape is (9, 7), and the slicers have 3 sizes\n"
        "    allowed: a size for each axis of space, or for each but the first, which is then the channels"
    )


def test_without_the_data(section: Section):
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        section["data"][key] = "nowhere.npy"
    first: Section = {
        "class_name": "InputLayer",
        "config": {"name": "input", "batch_input_shape": [None, None, None, 3]},
    }
    section["layers"] = [first, SHRINKING]
    said = (
        "    allowed: a network that changes the channels alone\n"
        "    let the last layer give the size of the slices, or leave hdf5_outfile out"
    )
    where = f"{DATA}.hdf5_outfile"
    assert refused(section, check_without_data) == (
        f"{where}: of slices (3, 6, 4) of rows the network makes (2, 4, 2), channels first\n{said}\n"
        f"{where}: of slices (3, 8, 4) of columns the network makes (2, 6, 2), channels first\n{said}"
    )
    first["config"]["batch_input_shape"] = [None, 6, 6, 3]
    assert refused(section, check_without_data).count("the network's input is (6, 6, 3)") == 2
    section["data"] |= {"slicers": [{"sizes": [4, 4, 4]}], "transforms": [{"convert_color": "BGR2GRAY"}]}
    assert refused(section, check_without_data) == (
        f"{DATA}.transforms[0].convert_color: acts on 2D samples, and these are 3D\n"
        "    leave it out: only `normalize` goes with such samples"
    )
    # What a conversion leaves of channels that are not known, nobody knows.
    section["data"]["slicers"] = SETS
    section["layers"] = [CONV]
    check_without_data(read({"neural_network": section}))
