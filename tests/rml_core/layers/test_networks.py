"""Whole networks, as Keras 3 writes them and as Keras 2 did."""

import json

import keras
import pytest
import torch
from keras import layers as L


def every_kind():
    return keras.Sequential(
        [
            keras.Input((17, 14, 1)),
            L.ZeroPadding2D(((0, 1), (1, 0))),
            L.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.Conv2D(6, (3, 2), padding="same", activation="elu", dilation_rate=(1, 2)),
            L.MaxPooling2D(padding="same"),
            L.LeakyReLU(negative_slope=0.1),
            L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
            L.AveragePooling2D(3, strides=1),
            L.Activation("silu"),
            L.UpSampling2D((1, 2), interpolation="bilinear"),
            L.Flatten(),
            L.Dense(24, activation="tanh"),
            L.Reshape((2, 3, 4)),
            L.Conv2D(3, 2, groups=1),
            L.GlobalAveragePooling2D(),
            L.Dense(5),
            L.Softmax(),
        ],
        name="every_kind",
    )


def residual():
    """Shared layers, nested models, one of them called twice, one inside another, one frozen."""
    x = keras.Input((8, 8, 3), name="image")

    def block(name, channels, trainable=True):
        y = keras.Input((None, None, channels))
        z = L.Conv2D(channels, 3, padding="same", use_bias=False, name="conv")(y)
        z = L.BatchNormalization(name="norm")(z)
        z = L.Activation("relu", name="act")(L.Add(name="sum")([z, y]))
        model = keras.Model(y, z, name=name)
        model.trainable = trainable
        return model

    tower = keras.Sequential([keras.Input((8, 8, 4)), block("inner", 4), L.Conv2D(4, 1, name="mix")], name="tower")
    shared = L.Conv2D(4, 3, padding="same", name="shared")
    y = L.Conv2D(4, 1, name="stem")(x)
    y = shared(y)
    twice = block("twice", 4)
    y = L.Subtract(name="difference")([twice(y), tower(y)])
    y = shared(L.LeakyReLU(name="leaky")(y))
    y = block("frozen", 4, trainable=False)(twice(y))
    y = L.Dense(3, activation="log_softmax", name="out")(L.GlobalMaxPooling2D(name="pool")(y))
    return keras.Model(x, y, name="residual")


def unet(rank, up, size=16, channels=2, depth=2):
    def layer(kind):
        return getattr(L, kind.replace("ND", f"{rank}D"))

    def conv(x, filters):
        for _ in range(2):
            x = layer("ConvND")(filters, 3, padding="same", use_bias=False)(x)
            x = L.Activation("relu")(L.BatchNormalization()(x))
        return x

    x = inputs = keras.Input((size,) * rank + (channels,))
    skips = []
    for level in range(depth):
        x = conv(x, 4 * 2**level)
        skips.append(x)
        x = layer("MaxPoolingND")()(x)
    x = conv(x, 4 * 2**depth)
    for level in reversed(range(depth)):
        if up == "transposed":
            x = layer("ConvNDTranspose")(4 * 2**level, 3, strides=2, padding="same")(x)
        elif up == "transposed 2":
            x = layer("ConvNDTranspose")(4 * 2**level, 2, strides=2, activation="relu")(x)
        elif up == "bilinear":
            x = L.UpSampling2D(interpolation="bilinear")(x)
        else:
            x = layer("UpSamplingND")()(x)
        x = conv(L.Concatenate()([skips[level], x]), 4 * 2**level)
    return keras.Model(inputs, layer("ConvND")(3, 1, activation="softmax")(x))


UPS = [
    (1, "nearest"),
    (2, "nearest"),
    (2, "bilinear"),
    (2, "transposed"),
    (2, "transposed 2"),
    (3, "nearest"),
    (3, "transposed"),
]


def as_keras_2(model):
    """The model as Keras 2 wrote models: nested lists of connections, `batch_input_shape`, a version."""
    written = legacy(json.loads(model.to_json()))
    return {
        "class_name": written["class_name"],
        "config": written["config"],
        "keras_version": "2.15.0",
        "backend": "tensorflow",
    }


def legacy(item):
    config = dict(item["config"])
    for key in ("optional", "renorm", "renorm_clipping", "renorm_momentum", "synchronized", "dtype"):
        config.pop(key, None)
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    if item["class_name"] == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    old = {"class_name": item["class_name"], "config": config}
    if "inbound_nodes" in item:
        old["name"] = item["name"]
        old["inbound_nodes"] = [histories(node["args"]) for node in item["inbound_nodes"]]
    if "layers" in config:
        # Keras 2 counts the making of a nested model as its call 0.
        nested = {part["config"]["name"] for part in config["layers"] if "layers" in part["config"]}
        config["layers"] = [legacy(part) for part in config["layers"]]
        for history in (h for part in config["layers"] for node in part.get("inbound_nodes", []) for h in node):
            history[1] += history[0] in nested
        for key in ("input_layers", "output_layers"):
            if key in config:
                name, call, tensor = config[key]
                config[key] = [[name, call + (name in nested), tensor]]
    return old


def histories(value):
    if isinstance(value, list):
        return [found for part in value for found in histories(part)]
    return [[*value["config"]["keras_history"], {}]]


def networks():
    yield pytest.param(every_kind, id="every kind")
    yield pytest.param(residual, id="residual")
    for rank, up in UPS:
        yield pytest.param(
            lambda rank=rank, up=up: unet(rank, up, size=8 if rank == 3 else 16), id=f"{rank}D U-Net, {up}"
        )


@pytest.mark.parametrize("make", networks())
def test_networks_are_those_of_keras(agree, double_precision, make):
    model = make()
    if len(model.input_shape) == 4:
        agree(make(), steps=3, memory_format=torch.channels_last)
    network, _ = agree(model, steps=3, memory_format=torch.contiguous_format)
    assert network.layers == len(json.loads(model.to_json())["config"]["layers"])


@pytest.mark.parametrize("make", networks())
def test_single_precision(agree, make):
    agree(make(), batch=4, gradients=False)


@pytest.mark.parametrize("make", networks())
def test_keras_2_wrote_the_same_networks(from_keras, make):
    model = make()
    old = as_keras_2(model)
    _, new_module = from_keras(model)
    network, module = from_keras(model, old)
    assert network.graph.keras_version == 2
    assert list(module.state_dict()) == list(new_module.state_dict())
    x = torch.randn(2, *(size for size in network.input_shape))
    assert torch.equal(module.eval()(x), new_module.eval()(x))


@pytest.mark.parametrize("make", [pytest.param(lambda: unet(2, "nearest"), id="U-Net"), every_kind])
def test_what_we_take_for_keras_2_is(make):
    """The JSON of the test above, read by Keras's own reader of Keras 2's JSON, is the same network."""
    from keras.src.legacy.saving import saving_utils

    model = make()
    restored = saving_utils.model_from_config(as_keras_2(model))
    restored.set_weights(model.get_weights())
    x = torch.randn(2, *model.input_shape[1:])
    torch.testing.assert_close(restored(x), model(x))


def test_layers_and_models_that_are_called_three_times(agree, double_precision):
    x = keras.Input((6,))
    dense, inner = (
        L.Dense(6, activation="relu"),
        keras.Sequential([keras.Input((6,)), L.Dense(6), L.BatchNormalization()]),
    )
    y = x
    for _ in range(3):
        y = inner(dense(y))
    agree(keras.Model(x, y), batch=32, steps=3)


def test_a_network_for_any_size(agree):
    model = keras.Sequential(
        [keras.Input((None, None, 2)), L.Conv2D(3, 3, strides=2, padding="same"), L.MaxPooling2D(2, padding="same")]
    )
    for sizes in ((8, 8, 2), (9, 11, 2), (7, 4, 2)):
        network, _ = agree(model, sizes=sizes)
    assert network.output_shape_keras == (None, None, 3)
    assert network.output_shape == (3, None, None)
