"""The families of `keras.applications` as Keras 3 writes them: numbers with fewer channels, counts in full."""

import json
from pathlib import Path

import keras
import pytest
import torch
from keras import applications as A
from keras.src.applications import convnext

from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

EIGHTH = 8
# The smallest input that each one takes, or a little more.
SMALL = {
    "VGG16": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "MobileNet": 33,
    "MobileNetV2": 36,
    "EfficientNetB0": 33,
    "EfficientNetV2B0": 32,
    "EfficientNetV2S": 32,
}
ENDS = {"weights": None, "classes": 10, "classifier_activation": None, "input_shape": (32, 32, 3)}
# These have options of their own to be small.
OWN = {
    "MobileNetV3Small": lambda: A.MobileNetV3Small(alpha=0.25, dropout_rate=0, **ENDS),
    "MobileNetV3Large": lambda: A.MobileNetV3Large(alpha=0.25, dropout_rate=0, minimalistic=True, **ENDS),
    "ConvNeXt": lambda: convnext.ConvNeXt(depths=[1, 1, 2, 1], projection_dims=[8, 12, 16, 24], **ENDS),
}
QUICK = ("MobileNetV2", "MobileNetV3Small", "ConvNeXt")
# A member of each family, its largest where the families differ in depth.
FULL = (
    "VGG19",
    "ResNet152",
    "ResNet152V2",
    "DenseNet201",
    "InceptionV3",
    "InceptionResNetV2",
    "Xception",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "EfficientNetB7",
    "EfficientNetV2L",
    "ConvNeXtXLarge",
)


def shrunk(value):
    """A model's JSON with an eighth of all channels but the 10 classes, and without dropout."""
    if isinstance(value, list):
        return [shrunk(item) for item in value]
    if not isinstance(value, dict) or value.get("class_name") == "__keras_tensor__":
        return value
    value = {key: shrunk(item) for key, item in value.items() if key != "build_config"}
    for key in ("filters", "units", "groups"):
        if isinstance(value.get(key), int) and value[key] not in (1, 10):
            value[key] = max(1, value[key] // EIGHTH)
    if isinstance(value.get("target_shape"), list):
        *head, last = value["target_shape"]
        value["target_shape"] = [*head, last if last == 10 else max(1, last // EIGHTH)]
    return {**value, "rate": 0.0} if "rate" in value else value


def small(name):
    if name in OWN:
        return OWN[name]()
    size = SMALL[name]
    # Keras takes the mean and the variance of its first layers in single precision.
    more = {"include_preprocessing": False} if name == "EfficientNetV2B0" else {}
    with keras.device("meta"):
        model = getattr(A, name)(**{**ENDS, **more, "input_shape": (size, size, 3)})
    return keras.models.model_from_json(json.dumps(shrunk(json.loads(model.to_json()))))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in (*SMALL, *OWN)]
)
def test_the_numbers_of_a_smaller_one_are_those_of_keras(agree, double_precision, name):
    agree(small(name), memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_the_largest_members_are_counted_as_keras_counts(name):
    with keras.device("meta"):
        model = getattr(A, name)(weights=None)
    written = json.loads(model.to_json())
    network = infer(read(written, "layers", Path()), None)
    assert network.parameters == model.count_params()
    assert network.trainable == sum(weight.value.numel() for weight in model.trainable_weights)
    assert network.layers == len(written["config"]["layers"])
    assert network.output_shape_keras == tuple(model.output_shape[1:])
