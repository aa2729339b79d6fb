"""Files that real Keras 2 and Keras 3 saved: the network that is filled from one gives Keras's numbers."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.engine.weights import WHERE, problem_of
from rml_core.engine.weights import load as load_from
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

ORACLES = Path(__file__).parents[2] / "oracles"
VERSIONS = ("2.12", "2.15")
ARCHIVES = {version: ORACLES / f"keras_2_weights_{version}.zip" for version in VERSIONS}
WEIGHTS = [
    (version, name)
    for version, archive in ARCHIVES.items()
    for name in zipfile.ZipFile(archive).namelist()
    if name.endswith((".h5", ".keras"))
]
BY_ORDER = "The file has no names: its layers are taken by class and order, as Keras does"


def load(path, module, network):
    """What can be loaded is never refused for its names."""
    said = load_from(path, module, network)
    assert problem_of(path, network) is None
    return said


def network_of(source):
    return infer(read(source, "layers", Path()), None)


def output_of(module, x):
    with torch.no_grad():
        y = module.eval()(torch.from_numpy(np.asarray(x, np.float32)).movedim(-1, 1))
    return y.movedim(1, -1).numpy()


def everything(count):
    return f"Loaded {count} of the network's {count} layers with weights, skipped 0"


# --- Keras 2


@pytest.mark.parametrize(("version", "name"), WEIGHTS, ids=[f"{version}-{name}" for version, name in WEIGHTS])
def test_keras_2(tmp_path, version, name):
    with zipfile.ZipFile(ARCHIVES[version]) as archive:
        path = Path(archive.extract(name, tmp_path))
        kind = name.partition(".")[0].partition("_")[0]
        network = network_of(json.loads(archive.read("networks.json"))[kind])
        arrays = np.load(io.BytesIO(archive.read("arrays.npz")))
    module = build(network, seed=0)
    count = sum(1 for layer in network.unique if layer.weights)
    assert load(path, module, network) == [*([BY_ORDER] if ".weights." in name else []), everything(count)]
    np.testing.assert_allclose(output_of(module, arrays[f"{kind}:input"]), arrays[f"{kind}:output"], atol=1e-5)


def test_weights_are_those_of_the_file_to_the_bit_and_frozen_layers_stay_frozen(tmp_path):
    with zipfile.ZipFile(ARCHIVES["2.15"]) as archive:
        path = Path(archive.extract("nested.h5", tmp_path))
        network = network_of(json.loads(archive.read("networks.json"))["nested"])
    module = build(network, seed=0)
    load(path, module, network)
    with h5py.File(path) as file:
        group = file["model_weights/frozen"]
        kernel = group["frozen_conv/kernel:0"][:]
        variance = group["frozen_norm/moving_variance:0"][:]
    frozen = {name: value for name, value in module.named_parameters() if name.startswith("frozen/")}
    np.testing.assert_array_equal(frozen["frozen/frozen_conv.weight"].detach().permute(2, 3, 1, 0), kernel)
    np.testing.assert_array_equal(module.state_dict()["frozen/frozen_norm.running_var"], variance)
    assert [value.requires_grad for value in frozen.values()] == [False] * 4


# --- Keras 3


def image_classifier():
    """Every layer with weights, on an image that is not square."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((9, 8, 2)),
            layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.PReLU(shared_axes=[1, 2]),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            layers.GroupNormalization(2),
            layers.SeparableConv2D(6, 3, depth_multiplier=2),
            layers.LayerNormalization(),
            layers.Dropout(0.5),
            layers.Conv2DTranspose(3, 2, strides=2),
            layers.BatchNormalization(scale=False),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def lines():
    layers = keras.layers
    x = keras.Input((11, 4))
    y = layers.SeparableConv1D(6, 3)(layers.Conv1D(4, 3, groups=2)(x))
    y = layers.DepthwiseConv1D(3)(layers.Conv1DTranspose(4, 3)(y))
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))


def volume():
    layers = keras.layers
    x = keras.Input((4, 5, 6, 1))
    y = layers.Conv3DTranspose(2, 2, strides=2)(layers.Conv3D(3, 2)(x))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.BatchNormalization()(y))))


def nested():
    """Models in models, one frozen; a layer that is used twice, and one of whose class there are eleven."""
    layers = keras.layers

    def block(name, trainable=True):
        x = keras.Input((5, 5, 3))
        y = layers.BatchNormalization(name=f"{name}_norm")(layers.Conv2D(3, 3, padding="same")(x))
        model = keras.Model(x, layers.Add()([x, y]), name=name)
        model.trainable = trainable
        return model

    x = keras.Input((5, 5, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    tower = keras.Sequential([keras.Input((5, 5, 3)), block("inner"), layers.ReLU()], name="tower")
    y = shared(keras.Sequential([layers.Conv2D(4, 1), layers.Conv2D(3, 1)], name="deferred")(shared(x)))
    for _ in range(10):
        y = layers.Conv2D(3, 1)(y)
    y = block("frozen", trainable=False)(tower(y))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))


MODELS = (image_classifier, lines, volume, nested)
FILES = ("model.h5", "model.weights.h5", "model.keras")


def saved(model, path, compiled=False):
    """`model` with weights that hide nothing, in a file."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.normal(size=weight.shape) / max(1.0, np.prod(weight.shape[:-1])) ** 0.5
        if "variance" in weight.path or "gamma" in weight.path:
            values = random.uniform(0.5, 1.5, size=weight.shape)
        weight.assign(values)
    if compiled:
        x = random.normal(size=(2, *model.input_shape[1:]))
        model.compile("adam", "mse")
        model.fit(x, np.zeros((2, *model.output_shape[1:])), verbose=0)
    (model.save_weights if ".weights." in path.name else model.save)(path)
    return json.loads(model.to_json())


def same(module, model, network):
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:]))
    theirs = model(x, training=False).detach().numpy()
    np.testing.assert_allclose(output_of(module, x), theirs, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", MODELS)
def test_keras_3(tmp_path, make, name):
    model, path = make(), tmp_path / name
    network = network_of(saved(model, path, compiled=make is nested))
    module = build(network, seed=0)
    count = sum(1 for layer in network.unique if layer.weights)
    assert load(path, module, network) == [everything(count)]
    same(module, model, network)


@pytest.mark.parametrize("make", [image_classifier, nested])
def test_weights_without_names_as_the_first_versions_of_keras_3_have_them(tmp_path, make):
    model, path = make(), tmp_path / "model.weights.h5"
    network = network_of(saved(model, path))
    with h5py.File(path, "a") as file:
        groups = []
        file.visititems(lambda _, item: groups.append(item))
        for item in groups:
            item.attrs.pop("name", None)
            if item.name.endswith("/vars") and not len(item):
                # They have no groups for layers without weights either.
                del file[item.name]
    module = build(network, seed=0)
    count = sum(1 for layer in network.unique if layer.weights)
    assert load(path, module, network) == [BY_ORDER, everything(count)]
    same(module, model, network)


def renamed(layers):
    """The same layers, each by another name."""
    return [{**each, "config": {**each["config"], "name": f"other_{i}"}} for i, each in enumerate(layers)]


def test_weights_of_the_same_network_by_other_names(tmp_path):
    """Keras makes names up: the same code run twice gives others."""
    model, path = image_classifier(), tmp_path / "model.weights.h5"
    source = saved(model, path)
    source["config"]["layers"] = renamed(source["config"]["layers"])
    network = network_of(source)
    module = build(network, seed=0)
    why = "has no layer of the network's names"
    assert load(path, module, network) == [BY_ORDER.replace("has no names", why), everything(10)]
    same(module, model, network)


def test_layers_that_are_all_of_other_names_and_shapes(tmp_path):
    model, path = volume(), tmp_path / "model.weights.h5"
    saved(model, path)
    conv = {"class_name": "Conv3D", "config": {"name": "mine", "filters": 5, "kernel_size": 3}}
    network = network_of([{**conv, "config": {**conv["config"], "input_shape": [4, 5, 6, 1]}}])
    with pytest.raises(Refused) as refused:
        load(path, build(network, 0), network)
    (problem,) = refused.value.problems
    assert problem == problem_of(path, network)
    assert (problem.where, problem.what) == (WHERE, f"nothing in {path} fits a layer of the network")
    assert problem.allowed == "weights of mine"
    assert re.fullmatch(
        r"the file has (.*?)( and \d+ more)?: load another one, or give the layers its names", problem.remedy
    )


@pytest.mark.parametrize("name", FILES)
def test_a_backbone_in_a_network_with_a_new_head(tmp_path, name):
    """The file's network is a model inside ours, and its head another."""
    layers = keras.layers

    def tower():
        return [keras.Input((5, 5, 3)), layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm")]

    backbone = keras.Sequential([*tower(), layers.Flatten(), layers.Dense(10, name="class")])
    path = tmp_path / name
    saved(backbone, path)
    inside = keras.Sequential(tower(), name="backbone")
    ours = keras.Sequential([keras.Input((5, 5, 3)), inside, layers.Flatten(), layers.Dense(2, name="class")])
    network = network_of(json.loads(ours.to_json()))
    module = build(network, seed=0)
    assert load(path, module, network) == [
        "Skipping layer class: shape (36, 10) does not fit (36, 2)",
        "Loaded 2 of the network's 3 layers with weights, skipped 1; as they began: class",
    ]
    kernel = backbone.get_layer("conv").kernel.value.detach()
    assert torch.equal(module.state_dict()["backbone/conv.weight"].permute(2, 3, 1, 0), kernel)
