"""Normalisation within each sample: over axes, groups of channels, or each channel's places."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = [(6,), (7, 6), (5, 4, 6), (3, 4, 2, 6)]


def axes_of(shape):
    """Each choice of the sample's axes."""
    axes = range(1, len(shape) + 1)
    return [list(some) for count in axes for some in itertools.combinations(axes, count)]


def refused_by_torch(shape, axis):
    """Keras on torch takes axes that lie beside each other for the last ones."""
    return axis[-1] - axis[0] == len(axis) - 1 and axis[-1] != len(shape)


ALL = [(shape, axis) for shape in SHAPES for axis in axes_of(shape)]


@pytest.mark.parametrize(
    ("shape", "axis"), [*((shape, -1) for shape in SHAPES), *(each for each in ALL if not refused_by_torch(*each))]
)
def test_layer_normalization_is_that_of_keras(agree_layer, shape, axis):
    agree_layer(keras.layers.LayerNormalization(axis=axis, epsilon=0.01), shape)


@pytest.mark.parametrize(("shape", "axis"), [each for each in ALL if refused_by_torch(*each)])
def test_layer_normalization_along_other_axes(shape, axis):
    """The formula on channels-last arrays, gamma and beta in Keras's layout."""
    source = [{"class_name": "LayerNormalization", "name": "n", "config": {"axis": axis, "epsilon": 0.01}}]
    network = infer(read(source, "layers", Path()), (shape[-1], *shape[:-1]))
    module = build(network, 0)
    random = np.random.default_rng(0)
    x = random.normal(size=(3, *shape)).astype("float32")
    gamma, beta = random.normal(size=(2, *(shape[each - 1] for each in axis))).astype("float32")
    for weight, values in zip(network.unique[0].weights, (gamma, beta), strict=True):
        assert weight.shape == values.shape
        tensor = torch.from_numpy(values)
        with torch.no_grad():
            module.state_dict()[f"n.{weight.attribute}"].copy_(tensor.permute(weight.axes) if weight.axes else tensor)
    around = [size if place in axis else 1 for place, size in enumerate(x.shape)]
    mean, variance = x.mean(tuple(axis), keepdims=True), x.var(tuple(axis), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 0.01) * gamma.reshape(around) + beta.reshape(around)
    ours = module(torch.from_numpy(x).movedim(-1, 1)).movedim(1, -1)
    np.testing.assert_allclose(ours.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("center", "scale"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("axis", [-1, (2, 3), (1, 3), (1, 2, 3), (-1, -2)])
def test_layer_normalization_without_beta_or_gamma(agree_layer, axis, center, scale):
    agree_layer(keras.layers.LayerNormalization(axis=axis, center=center, scale=scale), (5, 4, 6))


def test_layer_normalization_in_channels_last_memory(agree_layer):
    layers = [keras.layers.Conv2D(6, 3), keras.layers.LayerNormalization(), keras.layers.Activation("sigmoid")]
    agree_layer(layers, (5, 4, 3), memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 2, 3, 6, -1])
def test_group_normalization_is_that_of_keras(agree_layer, shape, groups):
    agree_layer(keras.layers.GroupNormalization(groups, epsilon=0.01), shape)


@pytest.mark.parametrize(("center", "scale"), [(False, True), (True, False), (False, False)])
def test_group_normalization_without_beta_or_gamma(agree_layer, center, scale):
    agree_layer(keras.layers.GroupNormalization(2, center=center, scale=scale), (5, 4, 6))


def instance(config, shape):
    network = infer(read([{"class_name": "InstanceNormalization", "name": "n", "config": config}], "l", Path()), shape)
    return network, build(network, 0)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_instance_normalization_is_that_of_torch(affine, tracked, rank):
    shape = (3, 6, 5, 4)[: rank + 1]
    config = {"affine": affine, "track_running_stats": tracked, "epsilon": 0.01, "momentum": 0.3}
    network, ours = instance(config, shape)
    make = {1: torch.nn.InstanceNorm1d, 2: torch.nn.InstanceNorm2d, 3: torch.nn.InstanceNorm3d}[rank]
    theirs = make(3, eps=0.01, momentum=0.3, affine=affine, track_running_stats=tracked)
    assert network.parameters == 6 * affine + 6 * tracked
    assert network.trainable == 6 * affine
    if affine:
        with torch.no_grad():
            for name in ("weight", "bias"):
                theirs.state_dict()[name].normal_()
                ours.state_dict()[f"n.{name}"].copy_(theirs.state_dict()[name])
    for training in (True, True, True, False):
        x = torch.randn(4, *shape)
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))
    for name in ("running_mean", "running_var") if tracked else ():
        torch.testing.assert_close(ours.state_dict()[f"n.{name}"], theirs.state_dict()[name])


def test_the_defaults_of_instance_normalization_are_those_of_torch():
    network, ours = instance({}, (3, 6, 5))
    x = torch.randn(4, 3, 6, 5)
    assert network.parameters == 0
    torch.testing.assert_close(ours(x), torch.nn.InstanceNorm2d(3)(x))


def test_a_frozen_instance_normalization_uses_and_keeps_its_moving_statistics():
    _, ours = instance({"track_running_stats": True, "trainable": False}, (3, 6, 5))
    x = torch.randn(4, 3, 6, 5)
    torch.testing.assert_close(ours.train()(x), x / (1 + 1e-5) ** 0.5)
    assert torch.equal(ours.state_dict()["n.running_mean"], torch.zeros(3))


@pytest.mark.parametrize(
    ("class_name", "config", "shape", "message"),
    [
        ("LayerNormalization", {"axis": 4}, (6, 5, 4), "axis 4 is not one of the axes of its input (5, 4, 6)"),
        ("LayerNormalization", {"axis": [0]}, (6, 5, 4), "axis 0 is not one of the axes of its input (5, 4, 6)"),
        ("LayerNormalization", {"axis": [3, -1]}, (6, 5, 4), "axis [3, -1] names an axis of its input (5, 4, 6) twice"),
        (
            "LayerNormalization",
            {"axis": [1, 3]},
            (6, None, 4),
            "needs to know axis 1 of its input (?, 4, 6)\n    give the sizes of the network's input",
        ),
        ("GroupNormalization", {"groups": 4}, (6, 5), "its 4 groups do not divide the 6 channels of its input (5, 6)"),
        (
            "GroupNormalization",
            {"groups": 2, "axis": 1},
            (6, 5),
            "axis 1 of its input (5, 6) is not available\n    only the last axis, the channels, is: -1",
        ),
        ("InstanceNormalization", {}, (6,), "needs more than one number of each channel, and is given (6)"),
    ],
)
def test_what_does_not_fit(class_name, config, shape, message):
    with pytest.raises(Refused) as refused:
        infer(read([{"class_name": class_name, "name": "n", "config": config}], "layers", Path()), shape)
    assert str(refused.value) == f'layers[0]: layer "n" ({class_name}): {message}'
