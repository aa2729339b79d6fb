from pathlib import Path

import keras
import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.layers.activations import ACTIVATIONS
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = [(5,), (6, 4), (4, 6, 3), (3, 4, 2, 5)]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_activations_are_those_of_keras(agree_layer, name, shape):
    agree_layer(keras.layers.Activation(name), shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_inside_a_layer_and_after_it(agree_layer, name):
    """Where the layer's output may be overwritten."""
    agree_layer(keras.layers.Conv2D(3, 3, activation=name), (6, 5, 2))
    agree_layer([keras.layers.Dense(4), keras.layers.Activation(name)], (5,))


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, (1, 2), (-1, 1), (1, 2, 3)])
def test_softmax_along_keras_axes(agree_layer, axis):
    agree_layer(keras.layers.Softmax(axis=axis), (4, 6, 3))


def test_softmax_in_channels_last_memory(agree_layer):
    layers = [keras.layers.Conv2D(3, 1), keras.layers.Softmax()]
    agree_layer(layers, (4, 6, 3), memory_format=torch.channels_last)


@pytest.mark.parametrize("max_value", [None, 0.5, 6])
@pytest.mark.parametrize("negative_slope", [0.0, 0.3])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_relu_with_its_options(agree_layer, max_value, negative_slope, threshold):
    layer = keras.layers.ReLU(max_value=max_value, negative_slope=negative_slope, threshold=threshold)
    agree_layer([keras.layers.Dense(7), layer], (5,))


@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_elu_with_its_option(agree_layer, shape, alpha):
    agree_layer(keras.layers.ELU(alpha=alpha), shape)
    agree_layer([keras.layers.Dense(4), keras.layers.ELU(alpha=alpha)], shape)


@pytest.mark.parametrize(
    ("shape", "shared"),
    [
        ((5,), None),
        ((5,), [1]),
        ((6, 4), None),
        ((6, 4), [1]),
        ((4, 6, 3), None),
        ((4, 6, 3), [1, 2]),
        ((4, 6, 3), [1]),
        ((4, 6, 3), [3]),
        ((4, 6, 3), [1, 2, 3]),
        ((3, 4, 2, 5), [1, 2, 3]),
        ((3, 4, 2, 5), [2, -1]),
    ],
)
def test_prelu_is_that_of_keras(agree_layer, shape, shared):
    agree_layer(keras.layers.PReLU(shared_axes=shared), shape)
    layers = [keras.layers.Dense(shape[-1]), keras.layers.PReLU(shared_axes=shared), keras.layers.Dense(2)]
    agree_layer(layers, shape, memory_format=torch.channels_last if len(shape) == 3 else torch.contiguous_format)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {},
            "has an alpha for each element, and the sizes of its input (?, 4, 3) are not all known\n"
            '    give the sizes, or share alpha: "shared_axes": [1, 2]',
        ),
        ({"shared_axes": [1, 5]}, "axis [1, 5] is not one of the axes of its input (?, 4, 3)"),
    ],
)
def test_prelu_that_does_not_fit(config, message):
    with pytest.raises(Refused) as refused:
        infer(read([{"class_name": "PReLU", "name": "p", "config": config}], "layers", Path()), (3, None, 4))
    assert str(refused.value) == f'layers[0]: layer "p" (PReLU): {message}'


LAYER_OBJECTS = {
    "ReLU": lambda: keras.layers.ReLU(max_value=0.7, negative_slope=0.1, threshold=0.2),
    "LeakyReLU": lambda: keras.layers.LeakyReLU(negative_slope=0.15),
    "ELU": lambda: keras.layers.ELU(alpha=0.4),
    "Softmax along an axis": lambda: keras.layers.Softmax(axis=1),
}


@pytest.mark.parametrize("made", LAYER_OBJECTS.values(), ids=LAYER_OBJECTS)
def test_a_layer_in_the_place_of_an_activation(agree_layer, made):
    agree_layer(keras.layers.Conv2D(3, 2, activation=made()), (6, 5, 2))
    agree_layer(keras.layers.Activation(made()), (6, 5, 2))
    agree_layer(keras.layers.SeparableConv2D(3, 2, activation=made()), (6, 5, 2))


def applied(source, x, version):
    whole = {"class_name": "Sequential", "config": {"layers": source}, "keras_version": f"{version}.1.0"}
    return build(infer(read(whole, "layers", Path()), x.shape[1:]), 0)(x)


@pytest.mark.parametrize(
    ("config", "slope"), [({}, 0.3), ({"alpha": 0.1}, 0.1), ({"negative_slope": 0.2}, 0.2), ({"alpha": 0.0}, 0.0)]
)
def test_leaky_relu_in_both_spellings(config, slope):
    x = torch.linspace(-3, 3, 10).reshape(2, 5)
    y = applied([{"class_name": "LeakyReLU", "config": config}], x, 2)
    torch.testing.assert_close(y, torch.where(x > 0, x, slope * x))


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("Sigmoid", "sigmoid"),
        ("Tanh", "tanh"),
        ("Swish", "silu"),
        ("Log_Softmax", "log_softmax"),
        ("Softmax", "softmax"),
    ],
)
def test_layers_that_are_activations(class_name, name):
    x = torch.randn(2, 3, 4, 5)
    expected = applied([{"class_name": "Activation", "config": {"activation": name}}], x, 2)
    torch.testing.assert_close(applied([{"class_name": class_name, "config": {}}], x, 2), expected)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("softmax_v2", "softmax"),
        ("hard_swish", "hard_silu"),
        ("LeakyReLU", {"class_name": "LeakyReLU", "config": {"alpha": 0.3}}),
        ({"class_name": "relu", "config": {}}, "relu"),
        ({"class_name": "ReLU", "config": {"name": "re_lu", "trainable": True, "dtype": "float32"}}, "relu"),
        ({"class_name": "ReLU", "config": {"max_value": 6.0}}, "relu6"),
        ({"class_name": "ELU", "config": {"alpha": 1.0}, "module": "keras.layers", "registered_name": None}, "elu"),
        ({"module": "keras.activations", "class_name": "function", "config": "silu"}, "silu"),
        (None, "linear"),
    ],
)
def test_activations_in_their_spellings(spelling, name):
    x = torch.randn(4, 5)
    ours, expected = (
        applied([{"class_name": "Activation", "config": {"activation": each}}], x, 2) for each in (spelling, name)
    )
    assert torch.equal(ours, expected)


def test_hard_sigmoid_depends_on_the_version():
    x = torch.linspace(-4, 4, 33).reshape(1, 33)
    source = [{"class_name": "Activation", "config": {"activation": "hard_sigmoid"}}]
    torch.testing.assert_close(applied(source, x, 2), (0.2 * x + 0.5).clip(0, 1))
    torch.testing.assert_close(applied(source, x, 3), (x + 3).clip(0, 6) / 6)


@pytest.mark.parametrize(
    "spelling",
    [
        "log_softmax_v2",
        "Log_Softmax",
        {"module": "builtins", "class_name": "function", "config": "log_softmax_v2", "registered_name": "function"},
        {"class_name": "function", "config": "log_softmax", "registered_name": "log_softmax"},
    ],
)
@pytest.mark.parametrize("axis", [-1, 1])
def test_log_softmax_in_its_spellings(spelling, axis):
    x = torch.randn(2, 3, 4, 5)
    source = [{"class_name": "Activation", "config": {"activation": spelling, "axis": axis}}]
    expected = torch.log_softmax(x, 1 if axis == -1 else 2)
    torch.testing.assert_close(applied(source, x, 2), expected)


@pytest.mark.parametrize(
    ("last", "gives"),
    [
        ([("Dense", {"units": 2})], "linear"),
        ([("Dense", {"units": 2, "activation": "softmax"})], "softmax"),
        ([("Dense", {"units": 2}), ("Activation", {"activation": "log_softmax"})], "log_softmax"),
        ([("Dense", {"units": 2, "activation": "sigmoid"}), ("Dropout", {"rate": 0.1})], "sigmoid"),
        ([("Dense", {"units": 2, "activation": "swish"})], "silu"),
        ([("Dense", {"units": 2, "activation": "softmax"}), ("Dense", {"units": 2})], "linear"),
        ([("Conv2D", {"filters": 2, "kernel_size": 1}), ("Softmax", {})], "softmax"),
        ([("Conv2D", {"filters": 2, "kernel_size": 1}), ("Softmax", {"axis": 3})], "softmax"),
        ([("Conv2D", {"filters": 2, "kernel_size": 1}), ("Softmax", {"axis": 1})], "linear"),
        ([("Softmax", {}), ("Reshape", {"target_shape": [-1, 3]})], "softmax"),
        ([("Softmax", {}), ("Flatten", {})], "linear"),
        ([("Softmax", {}), ("Cropping2D", {})], "softmax"),
        ([("Softmax", {}), ("Permute", {"dims": [2, 1, 3]})], "softmax"),
        ([("Softmax", {}), ("Permute", {"dims": [3, 1, 2]})], "linear"),
        ([("Log_Softmax", {}), ("StochasticDepth", {"drop_path_rate": 0.1})], "log_softmax"),
        ([("Sigmoid", {})], "sigmoid"),
        ([("Dense", {"units": 2, "activation": {"class_name": "Softmax", "config": {}}})], "softmax"),
        ([("Softmax", {}), ("PReLU", {})], "linear"),
        ([("ReLU", {})], "relu"),
        ([("LeakyReLU", {})], "leaky_relu"),
    ],
)
def test_what_the_network_ends_in(last, gives):
    source = [{"class_name": name, "config": config} for name, config in last]
    assert infer(read(source, "layers", Path()), (3, 4, 4)).last_activation == gives


def test_an_unknown_activation_is_refused():
    source = [{"class_name": "Dense", "config": {"units": 2, "activation": "rleu"}}]
    with pytest.raises(Refused) as refused:
        read(source, "layers", Path())
    assert str(refused.value) == (
        'layers[0].config.activation: unknown activation "rleu"\n'
        "    allowed: linear, relu, relu6, leaky_relu, elu, selu, gelu, softmax, log_softmax, sigmoid, hard_sigmoid,"
        " tanh, softplus, softsign, silu, mish, exponential, hard_silu, swish, log_softmax_v2\n"
        '    did you mean "relu"?'
    )
