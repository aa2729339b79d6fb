"""Calls with arguments: a mode of their own, and numbers among the operands."""

import copy
import json
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers as L

from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read


def backbone():
    x = keras.Input((6, 5, 3))
    y = L.BatchNormalization(momentum=0.7)(L.Conv2D(4, 3)(x))
    return keras.Model(x, L.Dropout(0.5)(L.Activation("relu")(y)), name="backbone")


def head(y):
    return L.Dense(2)(L.GlobalAveragePooling2D()(y))


def in_evaluation_mode():
    x = keras.Input((6, 5, 3))
    y = L.BatchNormalization(momentum=0.7)(L.Conv2D(4, 3)(x), training=False)
    yield "layers", keras.Model(x, L.Dropout(0.5)(y, training=False))
    yield "a nested model", keras.Model(x, head(backbone()(x, training=False)))
    outer = keras.Input((6, 5, 3))
    twice = keras.Sequential([keras.Input((6, 5, 3)), backbone(), L.Dropout(0.1)])
    yield "a model nested twice", keras.Model(outer, head(twice(outer, training=False)))


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in in_evaluation_mode()])
def test_what_is_called_in_evaluation_mode_stays_in_it(from_keras, close, randomize, model):
    """Transfer learning as Keras's guide has it: statistics and dropout rest, the weights learn.

    Keras 3's own `fit` overrules the argument; called without a mode, its model keeps it.
    """
    randomize(model, np.random.default_rng(0))
    _, ours = from_keras(model)
    before = {key: values.clone() for key, values in ours.state_dict().items()}
    x = torch.randn(4, 6, 5, 3)
    for _ in range(2):
        y = ours.train()(x.movedim(-1, 1))
        close(y, channels_first(model(x)), "output")
    y.square().sum().backward()
    assert all(torch.equal(values, before[key]) for key, values in ours.state_dict().items())
    assert all(parameter.grad is not None for parameter in ours.parameters())


def channels_first(x):
    return x.movedim(-1, 1)


def in_training_mode():
    x = keras.Input((6, 5, 3))
    yield "a layer", keras.Model(x, head(L.BatchNormalization(momentum=0.7)(x, training=True)))
    model = keras.Sequential([keras.Input((6, 5, 3)), L.BatchNormalization(momentum=0.7), L.ReLU()])
    yield "a nested model", keras.Model(x, head(model(x, training=True)))
    shared = L.BatchNormalization(momentum=0.7)
    yield "one of two calls", keras.Model(x, L.Add()([shared(x), shared(L.ReLU()(x), training=True)]))


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in in_training_mode()])
def test_what_is_called_in_training_mode_stays_in_it(from_keras, close, randomize, model):
    randomize(model, np.random.default_rng(0))
    _, ours = from_keras(model)
    ours.eval()
    for _ in range(3):
        x = torch.randn(4, 6, 5, 3)
        close(ours(x.movedim(-1, 1)), channels_first(model(x)), "output")


def test_the_inner_call_outranks_the_outer_one(from_keras):
    inner = keras.Input((6, 5, 3))
    model = keras.Model(inner, L.BatchNormalization(momentum=0.7)(inner, training=True))
    x = keras.Input((6, 5, 3))
    _, ours = from_keras(keras.Model(x, model(x, training=False)))
    y = ours.eval()(torch.randn(20, 3, 6, 5))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_keras_2_writes_the_mode_beside_the_input(training):
    source = [
        {"class_name": "InputLayer", "name": "in", "config": {"batch_input_shape": [None, 50]}, "inbound_nodes": []},
        {
            "class_name": "Dropout",
            "name": "drop",
            "config": {"rate": 0.5},
            "inbound_nodes": [[["in", 0, 0, {"training": training}]]],
        },
    ]
    module = build(infer(read(source, "layers", Path()), None), 0)
    for mode in (False, True):
        assert bool((module.train(mode)(torch.ones(4, 50)) == 0).any()) == training


def arithmetic():
    x = keras.Input((4, 6, 3))
    y = L.Conv2D(3, 1)(x)
    yield "x + 3", keras.Model(x, y + 3)
    yield "3 + x", keras.Model(x, 3 + y)
    yield "x - 0.5", keras.Model(x, y - 0.5)
    yield "0.5 - x", keras.Model(x, 0.5 - y)
    yield "x * 2", keras.Model(x, y * 2.0)
    yield "x / 4", keras.Model(x, y / 4)
    yield "4 / x", keras.Model(x, 4 / (L.Activation("exponential")(y) + 1))
    yield "x + y", keras.Model(x, x + y)
    yield "x - y", keras.Model(x, x - y)
    yield "x * y", keras.Model(x, x * y)
    yield "x / y", keras.Model(x, x / (L.Activation("exponential")(y) + 1))
    yield "maximum", keras.Model(x, keras.ops.maximum(y, 0.25))
    yield "minimum", keras.Model(x, keras.ops.minimum(0.25, y))
    yield "relu", keras.Model(x, keras.ops.relu(y))
    yield "sigmoid", keras.Model(x, keras.ops.sigmoid(y))
    yield "hard swish", keras.Model(x, y * (L.ReLU(6.0)(y + 3.0) * (1.0 / 6.0)))


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in arithmetic()])
def test_arithmetic_is_that_of_keras(agree, model):
    agree(model)


def written(function, *inbound):
    """A function of TensorFlow between two layers, as Keras 2 writes it."""
    return [
        {"class_name": "InputLayer", "name": "in", "config": {"batch_input_shape": [None, 3]}, "inbound_nodes": []},
        {
            "class_name": "Activation",
            "name": "b",
            "config": {"activation": "exponential"},
            "inbound_nodes": [[["in", 0, 0]]],
        },
        {"class_name": "TFOpLambda", "name": "op", "config": {"function": function}, "inbound_nodes": [list(inbound)]},
    ]


@pytest.mark.parametrize(
    ("function", "inbound", "expected"),
    [
        ("__operators__.add", ["b", 0, 0, {"y": 3.0, "name": None}], lambda x: x.exp() + 3),
        ("__operators__.add", ["b", 0, 0, {"y": ["in", 0, 0], "name": None}], lambda x: x.exp() + x),
        ("math.multiply", ["b", 0, 0, {"y": 0.5, "name": None}], lambda x: x.exp() * 0.5),
        ("math.subtract", ["_CONSTANT_VALUE", -1, 1.0, {"y": ["b", 0, 0], "name": None}], lambda x: 1 - x.exp()),
        ("math.subtract", ["b", 0, 0, {"y": 1, "name": None}], lambda x: x.exp() - 1),
        ("math.truediv", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["b", 0, 0], "name": None}], lambda x: 2 / x.exp()),
        ("math.truediv", ["in", 0, 0, {"y": ["b", 0, 0], "name": None}], lambda x: x / x.exp()),
        ("math.maximum", ["b", 0, 0, {"y": 1.0, "name": None}], lambda x: x.exp().clamp(min=1)),
        ("nn.relu6", ["b", 0, 0, {"name": None}], lambda x: x.exp().clamp(0, 6)),
        ("nn.softmax", ["b", 0, 0, {"axis": None, "name": None}], lambda x: x.exp().softmax(1)),
    ],
)
def test_functions_of_tensorflow_as_keras_2_writes_them(function, inbound, expected):
    x = torch.randn(4, 3)
    module = build(infer(read(written(function, inbound), "layers", Path()), None), 0)
    torch.testing.assert_close(module(x), expected(x))


@pytest.mark.parametrize(
    ("function", "inbound", "message"),
    [
        (
            "math.multiply",
            ["b", 0, 0, {"name": None}],
            'layers[2]: layer "op" (TFOpLambda): math.multiply takes 2 inputs, and is given 1',
        ),
        (
            "nn.relu",
            ["b", 0, 0, {"y": 1.0}],
            'layers[2]: layer "op" (TFOpLambda): nn.relu takes 1 input, and is given 2',
        ),
        (
            "nn.softmax",
            ["b", 0, 0, {"axis": 1}],
            'layers[2].inbound_nodes[0][0]: a call with the arguments {"axis": 1} is not available\n'
            '    allowed: {}, {"training": false}',
        ),
    ],
)
def test_functions_that_do_not_fit(function, inbound, message):
    with pytest.raises(Refused) as refused:
        infer(read(written(function, inbound), "layers", Path()), None)
    assert str(refused.value) == message


def test_a_function_that_is_not_in_the_language_is_refused_by_name():
    with pytest.raises(Refused) as refused:
        read(written("linalg.matmul", ["b", 0, 0, {}]), "layers", Path())
    assert str(refused.value).splitlines()[0] == ('layers[2].config.function: unknown function "linalg.matmul"')


def test_a_layer_is_not_shared_between_calls_with_different_numbers():
    source = [
        *written("math.multiply", ["b", 0, 0, {"y": 2.0}])[:2],
        {
            "class_name": "TFOpLambda",
            "name": "op",
            "config": {"function": "math.multiply"},
            "inbound_nodes": [["b", 0, 0, {"y": 2.0}], ["op", 0, 0, {"y": 3.0}]],
        },
    ]
    with pytest.raises(Refused) as refused:
        infer(read(source, "layers", Path()), None)
    assert str(refused.value) == (
        'layers[2]: layer "op" (TFOpLambda): it is shared, and cannot be one layer for calls with different numbers'
    )


def test_what_is_no_module_can_be_copied_and_pickled_too():
    """Arithmetic, orders of axes and interpolation are functions, which a copy of the network holds as well."""
    x = keras.Input((4, 6, 3))
    y = L.Permute((2, 1, 3))(L.UpSampling2D(interpolation="bicubic")(1 - L.DepthwiseConv2D(1)(x) / 2))
    y = L.Dropout(0.5)(L.Cropping2D()(y), training=False)
    source = keras.Model(x, L.GlobalMaxPooling2D()(L.LayerNormalization()(y))).to_json()
    module = build(infer(read(json.loads(source), "layers", Path()), None), 0)
    given = torch.randn(2, 3, 4, 6)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(given), module(given))
