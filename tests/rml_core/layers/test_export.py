"""Exported networks against Keras: run by onnxruntime, and by torch through the file, at sizes that they were not
exported with."""

import copy
import io
import json
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import torch
from keras import layers as L

from rml_core.config.problem import Refused, RunFailed
from rml_core.layers import export
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read


def conv_net():
    """Sizes that are all known, and every operation that depends on them."""
    return keras.Sequential(
        [
            keras.Input((17, 14, 2)),
            L.ZeroPadding2D(((0, 1), (1, 0))),
            L.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.Dropout(0.5),
            L.MaxPooling2D(padding="same"),
            L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
            L.UpSampling2D(2),
            L.Flatten(),
            L.Dense(24, activation="elu"),
            L.Reshape((2, 3, 4)),
            L.Permute((2, 1, 3)),
            L.GlobalAveragePooling2D(),
            L.Dense(5, activation="softmax"),
        ]
    )


def open_net():
    """Sizes that are all open, in networks that end in one number a class."""
    x = inputs = keras.Input((None, None, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same")(x)
    x = L.MaxPooling2D(3, 2, padding="same")(x)
    x = L.DepthwiseConv2D(2, strides=2, padding="same", depth_multiplier=2)(x)
    x = L.GroupNormalization(2)(x)
    x = L.SeparableConv2D(6, 4, padding="same", activation="leaky_relu")(x)
    x = L.AveragePooling2D(3, 1, padding="same")(x)
    x = L.LayerNormalization()(x)
    x = L.PReLU(shared_axes=[1, 2])(x)
    x = L.Conv2D(4, 3, padding="same", dilation_rate=2)(x)
    return keras.Model(inputs, L.Dense(3, activation="log_softmax")(L.GlobalMaxPooling2D()(x)))


def unet(rank, up, size=None):
    def layer(kind):
        return getattr(L, kind.replace("ND", f"{rank}D"))

    x = inputs = keras.Input((*(size,) * rank, 2))
    skip = x = layer("ConvND")(4, 3, padding="same", activation="relu")(x)
    x = layer("MaxPoolingND")()(x)
    x = L.BatchNormalization()(layer("ConvND")(8, 3, padding="same", activation="relu")(x))
    x = up(x)
    x = L.Concatenate()([skip, x])
    return keras.Model(inputs, layer("ConvND")(3, 1, activation="softmax")(x))


def nested():
    """A layer and a model that are called twice, a frozen one, and every merge."""
    x = keras.Input((8, 8, 3))
    y = keras.Input((None, None, 4))
    block = keras.Model(y, L.Add()([L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(y)), y]), name="block")
    block.trainable = False
    shared = L.Conv2D(4, 3, padding="same", activation="tanh")
    z = block(L.Conv2D(4, 1)(x))
    z = L.Subtract()([shared(block(z)), L.Maximum()([shared(z), z])])
    z = L.Multiply()([L.Average()([z, shared(z)]), L.Minimum()([z, shared(z)])])
    return keras.Model(x, L.Dense(1, activation="sigmoid")(L.GlobalAveragePooling2D()(z)))


SMALL = {
    "sizes known": (conv_net, None, [(17, 14)]),
    "sizes open": (open_net, None, [(16, 16), (33, 20), (19, 50)]),
    "1D": (lambda: unet(1, L.UpSampling1D()), (2, 16), [(16,), (22,)]),
    "2D transposed": (lambda: unet(2, L.Conv2DTranspose(4, 3, strides=2, padding="same")), None, [(16, 16), (22, 30)]),
    "2D bilinear": (lambda: unet(2, L.UpSampling2D(interpolation="bilinear")), None, [(64, 64), (22, 30)]),
    "3D": (lambda: unet(3, L.Conv3DTranspose(4, 2, strides=2)), (2, 8, 8, 8), [(8, 8, 8), (6, 10, 12)]),
    "nested": (nested, None, [(8, 8)]),
}


@pytest.fixture(scope="module")
def made_of(from_keras):
    """name of a network -> (Keras's model, ours exported, sizes to try); each is made once."""
    return cache(partial(_made_of, from_keras))


def _made_of(from_keras, name):
    make, sample_shape, sizes = SMALL[name]
    keras.utils.set_random_seed(1)
    model = make()
    for weight in model.weights:
        if "variance" in weight.path or "mean" in weight.path:
            weight.assign(np.random.default_rng(0).uniform(0.5, 1.5, weight.shape))
    source = json.loads(model.to_json())
    shape = sample_shape or tuple(size or 16 for size in (model.input_shape[-1], *model.input_shape[1:-1]))
    _, ours = from_keras(model, source, shape)
    return model, export.exported(read(source, "layers", Path()), ours.state_dict(), shape), sizes


def check(model, run, sizes):
    random = np.random.default_rng(0)
    for spatial in sizes:
        for batch in (1, 5):
            x = random.normal(size=(batch, *spatial, model.input_shape[-1])).astype(np.float32)
            theirs = np.moveaxis(model(x, training=False).detach().numpy(), -1, 1)
            np.testing.assert_allclose(run(np.moveaxis(x, -1, 1).copy()), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_torch_runs_what_is_exported(name, made_of):
    model, made, sizes = made_of(name)
    file = export.as_torch(made, {"about.txt": "text"})
    texts = {"about.txt": ""}
    module = torch.export.load(io.BytesIO(file), extra_files=texts).module()
    check(model, lambda x: module(torch.from_numpy(x)).numpy(), sizes)
    assert texts == {"about.txt": "text"}
    assert made.input_shape[:2] == ("batch", model.input_shape[-1])


def run_by_onnxruntime(model, made, sizes):
    import onnxruntime

    file, opset = export.as_onnx(made, {"classes": "[1, 2]"})
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    check(model, lambda x: session.run(["output"], {"input": x})[0], sizes)
    assert session.get_modelmeta().custom_metadata_map == {"classes": "[1, 2]"}
    assert session.get_inputs()[0].shape == list(made.input_shape)
    assert opset >= 18


@pytest.mark.parametrize("name", ["3D", pytest.param("sizes open", marks=pytest.mark.slow)])
def test_onnxruntime_runs_what_is_exported(name, made_of):
    run_by_onnxruntime(*made_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SMALL) - {"sizes open", "3D"}))
def test_onnxruntime_runs_other_networks(name, made_of):
    run_by_onnxruntime(*made_of(name))


CONV = {"class_name": "Conv2D", "config": {"name": "conv", "filters": 4, "kernel_size": 3, "padding": "same"}}
FLAT = {"class_name": "Flatten", "config": {"name": "flat"}}
DENSE = {"class_name": "Dense", "config": {"name": "dense", "units": 2}}
POOL = {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}}


def with_input(shape):
    return [{"class_name": CONV["class_name"], "config": {**CONV["config"], "batch_input_shape": [None, *shape]}}]


@pytest.mark.parametrize(
    ("layers", "sample", "given", "gives"),
    [
        ([CONV, POOL, DENSE], (3, 12, 10), ("batch", 3, "height", "width"), ("batch", 2)),
        ([CONV], (3, 12, 10), ("batch", 3, "height", "width"), ("batch", 4, "height", "width")),
        ([CONV, FLAT, DENSE], (3, 12, 10), ("batch", 3, 12, 10), ("batch", 2)),
        ([*with_input((None, 10, 3)), POOL], (3, 12, 10), ("batch", 3, "height", 10), ("batch", 4)),
        ([*with_input((12, 10, 3)), POOL], None, ("batch", 3, 12, 10), ("batch", 4)),
        ([*with_input((None, None, 3)), POOL], None, ("batch", 3, "height", "width"), ("batch", 4)),
        ([DENSE], (3,), ("batch", 3), ("batch", 2)),
        # What depends on the sizes in a way that torch does not follow has those of the samples.
        (
            [{"class_name": "UpSampling2D", "config": {"name": "up", "interpolation": "bicubic"}}],
            (3, 12, 10),
            ("batch", 3, 12, 10),
            ("batch", 3, 24, 20),
        ),
    ],
)
def test_what_is_open_stays_open(layers, sample, given, gives):
    graph = read(layers, "layers", Path())
    weights = build(infer(graph, sample or (3, 12, 10)), 1).state_dict()
    made = export.exported(graph, weights, sample)
    assert (made.input_shape, made.output_shape) == (given, gives)


UP = {"class_name": "UpSampling2D", "config": {"name": "up"}}


def halved(padding):
    return [{"class_name": "MaxPooling2D", "config": {"name": "half", "pool_size": [2, 3], "padding": padding}}]


@pytest.mark.parametrize(
    ("layers", "gives", "sizes"),
    [
        ([CONV, UP], ("batch", 4, "2*height", "2*width"), ""),
        (halved("valid"), ("batch", 3, "height//2", "width//3"), ""),
        (halved("same"), ("batch", 3, "ceil(height/2)", "ceil(width/3)"), ""),
        (
            [{"class_name": "Conv2D", "config": {"name": "c", "filters": 2, "kernel_size": 5, "strides": 2}}],
            ("batch", 2, "output_height", "output_width"),
            "",
        ),
    ],
)
def test_sizes_of_the_output_are_said_by_those_of_the_input(layers, gives, sizes):
    graph = read(layers, "layers", Path())
    made = export.exported(graph, build(infer(graph, (3, 24, 30)), 1).state_dict(), (3, 24, 30))
    assert (made.input_shape, made.output_shape, made.sizes) == (("batch", 3, "height", "width"), gives, sizes)


def joined(cut, *inner):
    """A U-Net's way down and up again, beside what it is joined with."""
    x = keras.Input((None, None, 2), name="in")
    y = x
    for layer in inner:
        y = layer(y)
    return keras.Model(x, L.Concatenate()([L.Cropping2D(cut)(x), y]))


@pytest.mark.parametrize(
    ("model", "sample", "sizes"),
    [
        (lambda: joined(0, L.MaxPooling2D(4), L.UpSampling2D(4)), (2, 16, 24), "height and width: multiples of 4"),
        (
            lambda: joined(0, L.MaxPooling2D((6, 1)), L.UpSampling2D((6, 1))),
            (2, 18, 24),
            "height: multiples of 6",
        ),
        (
            lambda: joined(1, L.Cropping2D(1), L.MaxPooling2D((2, 3)), L.UpSampling2D((2, 3))),
            (2, 16, 20),
            "height: multiples of 2; width: 2 more than a multiple of 3",
        ),
    ],
)
def test_sizes_that_go_are_said(model, sample, sizes):
    graph = read(json.loads(model().to_json()), "layers", Path())
    made = export.exported(graph, build(infer(graph, sample), 1).state_dict(), sample)
    assert made.sizes == sizes
    file, _ = export.as_onnx(made, {})
    (output,) = onnx.load_from_string(file).graph.output
    shape = [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim]
    assert shape == list(made.output_shape)
    assert shape[:2] == ["batch", 4]


def test_samples_of_any_size():
    """A network that was trained on samples of different sizes says no size."""
    graph = read([CONV, POOL], "layers", Path())
    weights = build(infer(graph, (3, None, None)), 1).state_dict()
    assert export.exported(graph, weights, (3, None, None)).input_shape == ("batch", 3, "height", "width")


def test_a_network_that_says_no_shape():
    graph = read([CONV], "neural_network.layers", Path())
    with pytest.raises(Refused) as refused:
        export.exported(graph, {}, None)
    assert str(refused.value) == (
        "neural_network.layers: the network does not say the shape of its input\n"
        '    give its first layer "batch_input_shape": [null, height, width, channels]'
    )


def test_double_weights_become_single():
    graph = read([*with_input((8, 8, 3)), POOL], "layers", Path())
    module = build(infer(graph, None), 1)
    made = export.exported(graph, module.double().state_dict(), None)
    assert made.program.module()(torch.ones(1, 3, 8, 8)).dtype == torch.float32


def test_other_numbers_are_noticed(monkeypatch):
    graph = read([*with_input((8, 8, 3)), POOL], "layers", Path())
    weights = build(infer(graph, None), 1).state_dict()
    program = export._program

    def changed(module, network, example):
        other = copy.deepcopy(module)
        other.get_parameter("conv.bias").add_(1e-3)
        return program(other, network, example)

    monkeypatch.setattr(export, "_program", changed)
    with pytest.raises(RunFailed, match=r"^what torch exports gives other numbers than the network$"):
        export.exported(graph, weights, None)


def test_a_network_that_is_too_large_for_onnx(monkeypatch):
    graph = read([*with_input((8, 8, 3)), POOL], "layers", Path())
    made = export.exported(graph, build(infer(graph, None), 1).state_dict(), None)
    monkeypatch.setattr(export, "LARGEST_ONNX", 100)
    with pytest.raises(RunFailed, match=r"^the network is larger than an ONNX file can be, 2 GB: export it for torch$"):
        export.as_onnx(made, {})
