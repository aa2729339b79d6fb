from pathlib import Path

import keras
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = [(5,), (6, 3), (6, 4, 3), (4, 3, 5, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("center", "scale"), [(True, True), (False, True), (True, False), (False, False)])
def test_three_steps_are_those_of_keras(agree_layer, shape, center, scale):
    layer = keras.layers.BatchNormalization(center=center, scale=scale, momentum=0.8, epsilon=0.01)
    agree_layer(layer, shape, batch=5, steps=3)


@pytest.mark.parametrize(("shape", "axis"), [((6, 3), 1), ((6, 4, 3), 1), ((6, 4, 3), 2), ((4, 3, 5, 2), -2)])
def test_statistics_along_another_axis(agree_layer, shape, axis):
    agree_layer(keras.layers.BatchNormalization(axis=axis, momentum=0.8), shape, batch=5, steps=3)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_element_a_channel(agree_layer, shape):
    agree_layer(keras.layers.BatchNormalization(momentum=0.7), (*(1 for _ in shape[:-1]), shape[-1]), batch=1, steps=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_frozen_one_keeps_its_moving_statistics_and_uses_them(agree_layer, shape):
    network, _ = agree_layer(keras.layers.BatchNormalization(trainable=False), shape, steps=2)
    assert network.trainable == 0
    assert network.parameters == 4 * shape[-1]


def moved(source, shape, keras_version=None):
    """The moving variance after one training step on values whose variance over n elements is known, and that n."""
    whole = {"class_name": "Sequential", "config": {"layers": source}, "keras_version": f"{keras_version}.0.0"}
    module = build(infer(read(whole if keras_version else source, "layers", Path()), shape), 0)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    module(x)
    biased = x.movedim(1, -1).flatten(0, -2).var(0, unbiased=False)
    return module.state_dict()["bn.running_var"], biased, x.numel() // shape[0]


@pytest.mark.parametrize("version", [2, 3, None])
@pytest.mark.parametrize("shape", [(3,), (3, 6), (3, 6, 4), (3, 4, 3, 5)])
def test_the_moving_variance_is_unbiased_for_images_and_volumes_in_keras_2_alone(shape, version):
    source = [{"class_name": "BatchNormalization", "config": {"momentum": 0.9}, "name": "bn"}]
    moving, biased, count = moved(source, shape, version)
    estimate = biased * count / (count - 1) if version in (2, None) and len(shape) >= 3 else biased
    torch.testing.assert_close(moving, 0.9 + 0.1 * estimate, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, 3, [3], [-1]])
def test_the_channels_axis_in_its_spellings(axis):
    source = [{"class_name": "BatchNormalization", "config": {"axis": axis}}]
    assert infer(read(source, "layers", Path()), (3, 6, 4)).parameters == 12
