from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras.src.applications.convnext import LayerScale

from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = [(3,), (6, 3), (4, 6, 3), (2, 4, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("scale", "offset"), [(0.5, 0.0), (1 / 127.5, -1.0), ([0.5, 2.0, -1.0], 3), (2, [1, 2, 3])])
def test_rescaling_is_that_of_keras(agree_layer, shape, scale, offset):
    agree_layer([keras.layers.Rescaling(scale, offset), keras.layers.ReLU()], shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "given",
    [
        {"mean": [0.1, 2.0, -3.0], "variance": [0.5, 2.0, 0.0]},
        {"axis": None, "mean": 0.4, "variance": 2.0},
    ],
)
def test_normalization_by_what_the_file_says_is_that_of_keras(agree_layer, shape, given):
    agree_layer(keras.layers.Normalization(**given), shape, gradients=False)


@pytest.mark.parametrize("axis", [-1, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_normalization_by_its_weights_is_that_of_keras(from_keras, shape, axis):
    layer = keras.layers.Normalization(axis=axis)
    layer.adapt(np.random.default_rng(0).normal(1, 2, (20, *shape)).astype("float32"))
    model = keras.Sequential([keras.Input(shape), layer])
    network, ours = from_keras(model)
    assert (network.parameters, network.trainable) == (model.count_params(), 0)
    x = torch.randn(4, *shape)
    torch.testing.assert_close(ours(x.movedim(-1, 1)), model(x).movedim(-1, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_scale_is_that_of_keras(agree_layer, shape):
    agree_layer(LayerScale(1e-6, 3), shape)


@pytest.mark.parametrize(
    ("class_name", "config", "message"),
    [
        (
            "Rescaling",
            {"scale": [1, 2]},
            ': layer "a" (Rescaling): its scale has 2 numbers, and its input (4, 5, 3) has 3 channels',
        ),
        (
            "Rescaling",
            {"scale": "big"},
            '.config.scale: "big" does not fit\n    allowed: a number, or a list of numbers, one a channel',
        ),
        ("Normalization", {"mean": 1.0}, ': layer "a" (Normalization): needs both mean and variance, or neither'),
        (
            "Normalization",
            {"axis": 1},
            ': layer "a" (Normalization): axis 1 of its input (4, 5, 3) is not available\n'
            "    only the last axis, the channels, is: -1",
        ),
        (
            "Normalization",
            {"axis": [1, 2]},
            ".config.axis: [1, 2] is not available\n    allowed: -1, the channels; null, one number for all",
        ),
        (
            "LayerScale",
            {"init_values": 0.1, "projection_dim": 4},
            ': layer "a" (LayerScale): has 4 channels, and its input (4, 5, 3) has 3',
        ),
    ],
)
def test_what_does_not_fit(class_name, config, message):
    with pytest.raises(Refused) as refused:
        infer(read([{"class_name": class_name, "name": "a", "config": config}], "layers", Path()), (3, 4, 5))
    assert str(refused.value) == f"layers[0]{message}"


def test_what_the_file_says_is_no_part_of_the_state():
    source = [{"class_name": "Rescaling", "name": "r", "config": {"scale": 0.5}}]
    module = build(infer(read(source, "layers", Path()), (3, 4)), 0)
    assert list(module.state_dict()) == []
    assert torch.equal(module.double()(torch.ones(1, 3, 4, dtype=torch.float64)), torch.full((1, 3, 4), 0.5).double())
