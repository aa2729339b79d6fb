"""Files of Keras in HDF5: layouts of old versions, and files that are not as they should be."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from rml_core.checkpoints import keras_h5, keras_v3, match, read
from rml_core.checkpoints.stored import Held, Outline
from rml_core.checkpoints.torch_files import header
from rml_core.config.problem import Refused

WHERE = "neural_network.checkpoints.load"
CUT = "is cut short\n    it was not written or copied to its end; take an earlier one, or copy it again"
DAMAGED = "is damaged\n    take an earlier one, or copy it again"


def refusal(path):
    with pytest.raises(Refused) as refused:
        read(path, WHERE)
    return str(refused.value)


def write(path, layers, **attributes):
    """A weights-only file: `{layer: {weight: values}}`."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(list(layers), "S")
        for name, value in attributes.items():
            file.attrs[name] = value
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array(list(weights), "S")
            for name, values in weights.items():
                group[name] = values
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.h5"


def test_a_file_of_keras_1(path, network, layers_of):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 2)).astype("float32")
    conv = {"conv_W:0": kernel, "conv_b:0": np.ones(2)}
    norm = {f"norm_{name}:0": np.full(2, value) for value, name in enumerate(("gamma", "beta", "mean", "std"))}
    stored = read(write(path, {"conv": conv, "norm": norm, "flat": {}}), WHERE)
    assert (stored.keras, stored.flipped) == (1, False)
    assert match.load_into(network, stored, layers_of(network)) == [
        "Loaded 2 of the network's 3 layers with weights, skipped 0; as they began: dense/a"
    ]
    np.testing.assert_array_equal(network["conv"].weight.detach(), kernel.transpose(3, 2, 0, 1))
    assert network["norm"].running_var.tolist() == [3, 3]
    assert header(path, WHERE) is None


def test_versions_and_backends(path):
    layers = {"a": {"a/kernel:0": np.ones(3)}}
    for version, backend, expected in (("2.2.4", "theano", (2, True)), (b"3.1.0", b"torch", (3, False))):
        stored = read(write(path, layers, keras_version=version, backend=backend), WHERE)
        assert (stored.keras, stored.flipped) == expected


def test_names_that_are_too_many_for_one_attribute(path):
    layers = {f"layer_{index}": {"kernel:0": np.full(1, index)} for index in range(5)}
    write(path, layers)
    with h5py.File(path, "a") as file:
        names = file.attrs.pop("layer_names")
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
    assert [held.name for held in read(path, WHERE).held] == list(layers)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("conv/kernel:0", "last/kernel:0"), ["tower/inner/conv", "tower/last"]),
        (("inner/conv/kernel:0", "tower/last/kernel:0"), ["tower/inner/conv", "tower/last"]),
        (("tower/inner/conv/kernel", "sequential_3/last/kernel"), ["tower/inner/conv", "tower/last"]),
        (("conv/kernel:0", "first/kernel:0"), ["tower/inner/conv", "tower/first"]),
    ],
)
def test_weights_of_a_nested_model(names, expected):
    own = [("tower", "inner", "conv"), ("tower", "last"), ("last",), ("conv2",)]
    held = Held("tower", ("tower",), tuple((name, torch.ones(1)) for name in names))
    assert [each.name for each in keras_h5.layers_of(held, own)] == expected


def test_what_stands_before_the_weights_of_a_layer_does_not_matter():
    """TensorFlow 1 numbered it again each time that a model was loaded."""
    held = Held("conv", ("conv",), (("conv_1/kernel:0", torch.ones(1)), ("conv_1_2/bias:0", torch.ones(1))))
    assert list(keras_h5.layers_of(held, [("conv",)])) == [held]


def test_bfloat16(path):
    values = torch.tensor([1.5, -2.25, 1e30]).bfloat16()
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", data=values.view(torch.int16).numpy().view("V2"))
        group["0"].attrs["dtype"] = "bfloat16"
    ((_, read_back),) = read(path, WHERE).held[0].weights
    assert torch.equal(read_back, values)


def test_names_of_classes_in_a_file_of_keras_3():
    classes = ("Conv2DTranspose", "ReLU", "PReLU", "BatchNormalization", "DepthwiseConv1D", "Conv2DTranspose", "Model")
    snake = ("conv2d_transpose", "re_lu", "p_re_lu", "batch_normalization", "depthwise_conv1d", "conv2d_transpose_1")
    outlines = [Outline(str(index), name) for index, name in enumerate(classes)]
    held = [Held("", (), (), (name,)) for name in (*snake, "functional", "dense")]
    assert [each.name for each in keras_v3.named(held, outlines)] == ["0", "1", "2", "3", "4", "5", "6"]


# --- files that are not as they should be


def test_a_file_of_data(path):
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = np.zeros(3), np.zeros(3)
    assert refusal(path) == (
        f'{WHERE}: {path} is an HDF5 file without weights of Keras: at its root are ["images", "labels"]\n'
        "    allowed: what Keras's model.save or model.save_weights writes"
    )


def test_a_network_without_weights(path):
    what = f"{WHERE}: {path} holds no weights: none of its layers has any"
    assert refusal(write(path, {"flat": {}, "pool": {}})) == what
    with h5py.File(path, "w") as file:
        file.create_group("layers/flatten/vars")
    assert refusal(path) == what


def test_files_that_are_cut_short(path):
    write(path, {name: {"kernel:0": np.ones(300), "bias:0": np.ones(3)} for name in "abc"}, keras_version="2.15.0")
    whole = path.read_bytes()
    for size in range(8, len(whole), len(whole) // 25):
        path.write_bytes(whole[:size])
        assert refusal(path) in (f"{WHERE}: {path} {CUT}", f"{WHERE}: {path} {DAMAGED}")


def test_files_with_damage_in_their_structure(path):
    """What is hit is said to be damaged, or is nothing that the weights depend on.

    Texts of fixed length: HDF5 itself does not come back from some damage among those of any length.
    """
    layers = {name: {"kernel:0": np.ones(30), "bias:0": np.ones(3)} for name in "abc"}
    write(path, layers, keras_version=np.bytes_("2.15.0"))
    whole = path.read_bytes()
    said = set()
    for place in range(8, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes(40) + whole[place + 40 :])
        try:
            read(path, WHERE)
        except Refused as refused:
            said.add(str(refused).removeprefix(f"{WHERE}: {path} ").split(":")[0])
    assert DAMAGED in said
    assert said <= {DAMAGED, CUT, "is an HDF5 file without weights of Keras", "holds no weights"}


def test_names_that_are_not_in_the_file(path):
    write(path, {"a": {"kernel:0": np.ones(3)}})
    with h5py.File(path, "a") as file:
        del file["a/kernel:0"]
    assert refusal(path) == f"{WHERE}: {path} {DAMAGED}"


@pytest.mark.parametrize("kind", ["link", "storage", "virtual"])
def test_nothing_is_read_from_another_file(path, tmp_path, kind):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(3)
    write(path, {"a": {"kernel:0": np.ones(3)}})
    with h5py.File(path, "a") as file:
        del file["a/kernel:0"]
        if kind == "link":
            file["a/kernel:0"] = h5py.ExternalLink(str(other), "secret")
        elif kind == "storage":
            file["a"].create_dataset("kernel:0", (3,), "f8", external=[(str(other), 0, 24)])
        else:
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(other), "secret", (3,))
            file["a"].create_virtual_dataset("kernel:0", layout)
    assert refusal(path) == f"{WHERE}: {path} {DAMAGED}"
