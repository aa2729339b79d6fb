import itertools
from pathlib import Path

import keras
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = {1: (9,), 2: (9, 8), 3: (6, 5, 7)}
WINDOWS = [
    {"kernel_size": kernel, "strides": stride, "dilation_rate": dilation, "padding": padding}
    for kernel, stride, dilation, padding in itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2), ("valid", "same"))
    if stride == 1 or dilation == 1
]


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("given", WINDOWS, ids=lambda given: "-".join(map(str, given.values())))
@pytest.mark.parametrize("rank", [1, 2])
def test_depthwise_convolutions_are_those_of_keras(agree_layer, rank, given, multiplier):
    layer = getattr(keras.layers, f"DepthwiseConv{rank}D")(depth_multiplier=multiplier, **given)
    agree_layer(layer, (*SHAPES[rank], 3))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("given", WINDOWS, ids=lambda given: "-".join(map(str, given.values())))
@pytest.mark.parametrize("rank", [1, 2])
def test_separable_convolutions_are_those_of_keras(agree_layer, rank, given, multiplier):
    layer = getattr(keras.layers, f"SeparableConv{rank}D")(4, depth_multiplier=multiplier, **given)
    agree_layer(layer, (*SHAPES[rank], 3))


@pytest.mark.parametrize("kind", ["DepthwiseConv2D", "SeparableConv2D"])
@pytest.mark.parametrize(("kernel", "strides"), [((3, 2), 1), ((2, 5), (1, 1)), ((3, 3), 2)])
def test_windows_of_unequal_sides_an_activation_and_no_bias(agree_layer, kind, kernel, strides):
    first = () if kind == "DepthwiseConv2D" else (4,)
    make = getattr(keras.layers, kind)
    agree_layer(make(*first, kernel, strides=strides, padding="same", activation="relu"), (7, 6, 3))
    agree_layer(make(*first, kernel, use_bias=False), (7, 6, 3), memory_format=torch.channels_last)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("given", WINDOWS[::3], ids=lambda given: "-".join(map(str, given.values())))
def test_in_three_dimensions_it_is_a_convolution_in_as_many_groups_as_channels(multiplier, given):
    """Keras has no DepthwiseConv3D."""

    def made(class_name, **config):
        source = [{"class_name": class_name, "name": "c", "config": {**given, **config}}]
        network = infer(read(source, "layers", Path()), (3, *SHAPES[3]))
        return network, build(network, 0)

    grouped_network, grouped = made("Conv3D", filters=3 * multiplier, groups=3)
    network, module = made("DepthwiseConv3D", depth_multiplier=multiplier)
    assert network.output_shape == grouped_network.output_shape
    assert network.parameters == grouped_network.parameters
    (kernel, bias) = network.unique[0].weights
    assert kernel.shape == (*(given["kernel_size"],) * 3, 3, multiplier)
    assert bias.shape == (3 * multiplier,)
    with torch.no_grad():
        grouped.state_dict()["c.weight"].copy_(module.state_dict()["c.weight"].flatten(0, 1).unsqueeze(1))
    x = torch.randn(2, 3, *SHAPES[3])
    torch.testing.assert_close(module(x), grouped(x))


def test_causal_separable_convolution_pads_before_the_beginning():
    """Keras 2 alone has it: the depthwise part sees no later element."""
    config = {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"}
    network = infer(read([{"class_name": "SeparableConv1D", "name": "s", "config": config}], "layers", Path()), (2, 9))
    module = build(network, 0)
    valid = {**config, "padding": "valid"}
    plain = build(
        infer(read([{"class_name": "SeparableConv1D", "name": "s", "config": valid}], "l", Path()), (2, 9)), 0
    )
    x = torch.randn(3, 2, 9)
    assert network.output_shape == (4, 9)
    torch.testing.assert_close(module(x), plain(torch.nn.functional.pad(x, (4, 0))))


def test_symmetric_padding_is_the_convolution_s_own(monkeypatch):
    """No padded copy of the input where both sides get the same."""
    from rml_core.layers.modules import convolution

    def refuse(*_):
        raise AssertionError("padded by a copy")

    monkeypatch.setattr(convolution.F, "pad", refuse)
    for strides, size in ((1, 8), (2, 9)):
        config = {"kernel_size": 3, "strides": strides, "padding": "same"}
        source = [{"class_name": "DepthwiseConv2D", "config": config}]
        build(infer(read(source, "layers", Path()), (3, size, size)), 0)(torch.randn(1, 3, size, size))
