"""The families of `keras.applications` as real Keras 2 writes them: writes keras_2_families.json.xz beside this file.

Run it in a virtual environment of its own: `pip install tensorflow-cpu==2.15.1`, then `python keras_2_families.py`.
Every member in its full size: its JSON and what Keras counts, without weights. One member of each family with an
eighth of its channels: its numbers in float64, for weights and an input that follow from their names (`drawn`): the
output in evaluation and in training, and the norm of each weight's gradient in training. Dropout is left out there.
"""

import json
import lzma
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from keras.src.applications import convnext, nasnet
from tensorflow import keras

A = keras.applications
EIGHTH = 8
FULL = [
    "VGG16",
    "VGG19",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNet50V2",
    "ResNet101V2",
    "ResNet152V2",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "InceptionV3",
    "InceptionResNetV2",
    "Xception",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "EfficientNetV2M",
    "EfficientNetV2L",
    "NASNetMobile",
    "NASNetLarge",
    "ConvNeXtTiny",
    "ConvNeXtSmall",
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtXLarge",
]
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
}
ENDS = {"weights": None, "classes": 10, "classifier_activation": None, "input_shape": (32, 32, 3)}
# Keras cannot read back what it writes of these: they have options of their own to be small.
OWN = {
    "MobileNetV3Small": lambda: A.MobileNetV3Small(alpha=0.25, dropout_rate=0, **ENDS),
    "MobileNetV3Large": lambda: A.MobileNetV3Large(alpha=0.25, dropout_rate=0, **ENDS),
    "NASNet": lambda: nasnet.NASNet(
        penultimate_filters=96, num_blocks=1, stem_block_filters=8, filter_multiplier=2, include_top=True,
        skip_reduction=False, default_size=32, **ENDS,
    ),
    "ConvNeXt": lambda: convnext.ConvNeXt(
        depths=[1, 1, 2, 1], projection_dims=[8, 12, 16, 24], drop_path_rate=0.0, layer_scale_init_value=1e-6,
        default_size=32, model_name="convnext", include_preprocessing=True, include_top=True, **ENDS,
    ),
}  # fmt: skip


def drawn(name, shape):
    """Numbers that follow from the name; positive ones for a variance."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if "variance" in name:
        return random.uniform(0.5, 1.5, size=shape)
    return random.normal(size=shape) / max(1.0, np.prod(shape[:-1])) ** 0.5


def shrunk(value):
    """A model's JSON with an eighth of all channels but a tensor's own 3 and the 10 classes, and without dropout."""
    if isinstance(value, list):
        return [shrunk(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: shrunk(item) for key, item in value.items() if key != "build_config"}
    for key in ("filters", "units", "groups", "projection_dim"):
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
    # TensorFlow takes the mean and the variance of its first layers in single precision.
    more = {"include_preprocessing": False} if name == "EfficientNetV2B0" else {}
    model = getattr(A, name)(**{**ENDS, **more, "input_shape": (size, size, 3)})
    return keras.models.model_from_json(json.dumps(shrunk(json.loads(model.to_json()))))


def leaves(model, prefix=""):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def described(model):
    return {
        "model": json.loads(model.to_json().replace("float64", "float32")),
        "parameters": model.count_params(),
        "trainable": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "layers": len(model.layers),
        "output_shape": model.output_shape[1:],
    }


def measured(model, name):
    for layer, each in leaves(model):
        for number, weight in enumerate(each.weights):
            if weight.dtype.is_floating:
                kind = "variance" if "variance" in weight.name else "weight"
                weight.assign(drawn(f"{name}:{layer}:{kind} {number}", weight.shape))
        if isinstance(each, keras.layers.Normalization) and each.weights:
            each.finalize_state()
    x = tf.constant(drawn(f"{name}:input", (2, *model.input_shape[1:])) * 10)
    evaluated = model(x, training=False).numpy()
    with tf.GradientTape() as tape:
        trained = model(x, training=True)
        pulled = tf.reduce_sum(trained * drawn(f"{name}:pull", trained.shape))
    places = {
        f"{layer}:{number}": weight
        for layer, each in leaves(model)
        for number, weight in enumerate(each.weights)
        if weight.trainable
    }
    gradients = tape.gradient(pulled, list(places.values()))
    norms = {place: float(tf.norm(gradient)) for place, gradient in zip(places, gradients, strict=True)}
    return {"evaluated": evaluated.tolist(), "trained": trained.numpy().tolist(), "gradient_norms": norms}


def main():
    families = {"full": {}, "small": {}}
    for name in FULL:
        families["full"][name] = described(getattr(A, name)(weights=None))
        keras.backend.clear_session()
    keras.backend.set_floatx("float64")
    for name in (*SMALL, *OWN):
        model = small(name)
        families["small"][name] = described(model) | measured(model, name)
        print(name, flush=True)
        keras.backend.clear_session()
    packed = lzma.compress(json.dumps(families).encode(), preset=9 | lzma.PRESET_EXTREME)
    Path(__file__).with_suffix(".json.xz").write_bytes(packed)


if __name__ == "__main__":
    main()
