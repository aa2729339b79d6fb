"""Weights as real Keras 2 saves them: writes keras_2_weights_<version>.zip beside this file.

Run it in virtual environments of their own, one with `tensorflow-cpu==2.15.1` (Keras 2.15), one with
`tensorflow-cpu==2.12.1` (2.12, whose `.weights.h5` numbers layers in another way). The archive holds for each network
its JSON (networks.json), an input and the output in evaluation (arrays.npz), and files with its weights:
`.weights.h5`, and of 2.15 the whole model `.h5` (with its optimizer's), `_weights.h5` and `.keras`.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path

import keras as standalone
import numpy as np
import tensorflow as tf
from tensorflow import keras

L = keras.layers
VERSION = ".".join(standalone.__version__.split(".")[:2])


def separable():
    """Names with `/`, and every kind of kernel; Dense behind Flatten, whose elements have an order."""
    more = [L.GroupNormalization(2, name="body/groups")] if VERSION == "2.15" else []
    return keras.Sequential(
        [
            L.Conv2D(4, 3, strides=2, padding="same", use_bias=False, input_shape=(9, 8, 2), name="entry/conv"),
            L.BatchNormalization(name="entry/norm"),
            L.PReLU(shared_axes=[1, 2], name="entry/slopes"),
            L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="body/depthwise"),
            *more,
            L.SeparableConv2D(6, 3, depth_multiplier=2, name="body/separable"),
            L.LayerNormalization(name="body/layer"),
            L.Conv2DTranspose(3, 2, strides=2, name="up"),
            L.BatchNormalization(scale=False, name="up/norm"),
            L.Flatten(name="flat"),
            L.Dense(3, activation="softmax", name="class"),
        ],
        name="separable",
    )


def unet():
    x = keras.Input((8, 8, 1))
    skips, y = [], x
    for filters in (3, 4):
        skips.append(L.Conv2D(filters, 3, padding="same", activation="relu")(y))
        y = L.MaxPooling2D()(L.BatchNormalization()(skips[-1]))
    y = L.Conv2D(5, 3, padding="same", activation="relu")(y)
    for skip in reversed(skips):
        y = L.Concatenate()([L.Conv2DTranspose(3, 2, strides=2)(y), skip])
        y = L.Conv2D(3, 3, padding="same", activation="relu")(y)
    return keras.Model(x, L.Conv2D(2, 1, activation="softmax")(y), name="unet")


def nested():
    """Models in models, one frozen, one whose layers are built when it is called; a shared layer."""

    def block(name, trainable=True):
        x = keras.Input((5, 5, 3))
        y = L.BatchNormalization(name=f"{name}_norm")(L.Conv2D(3, 3, padding="same", name=f"{name}_conv")(x))
        model = keras.Model(x, L.Add()([x, y]), name=name)
        model.trainable = trainable
        return model

    x = keras.Input((5, 5, 3))
    shared = L.Conv2D(3, 3, padding="same", name="shared")
    deferred = keras.Sequential([L.Conv2D(4, 1), L.ReLU(), L.Conv2D(3, 1)], name="deferred")
    tower = keras.Sequential([keras.Input((5, 5, 3)), block("inner"), L.ReLU()], name="tower")
    y = block("frozen", trainable=False)(tower(shared(deferred(shared(x)))))
    return keras.Model(x, L.Dense(2, name="class")(L.Flatten()(y)), name="nested")


def main():
    rng = np.random.default_rng(0)
    networks, arrays = {}, {}
    archive = Path(__file__).with_name(f"keras_2_weights_{VERSION}.zip")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        os.chdir(folder)
        for make in (separable, unet, nested):
            keras.backend.clear_session()
            model, name = make(), make.__name__
            for weight in model.weights:
                values = rng.normal(size=weight.shape) / max(1.0, np.prod(weight.shape[:-1])) ** 0.5
                if "variance" in weight.name or "gamma" in weight.name:
                    values = rng.uniform(0.5, 1.5, size=weight.shape)
                weight.assign(values)
            model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse")
            x = rng.normal(size=(3, *model.input_shape[1:])).astype("float32")
            model.fit(x, rng.normal(size=(3, *model.output_shape[1:])), verbose=0)
            arrays |= {f"{name}:input": x, f"{name}:output": model(x, training=False).numpy()}
            networks[name] = json.loads(model.to_json())
            model.save_weights(f"{name}.weights.h5")
            if VERSION == "2.15":
                model.save(f"{name}.h5")
                model.save_weights(f"{name}_weights.h5")
                model.save(f"{name}.keras")
        Path("networks.json").write_text(json.dumps(networks))
        np.savez(Path("arrays.npz"), **arrays)
        for file in sorted(Path().iterdir()):
            written.write(file)


if __name__ == "__main__":
    tf.random.set_seed(0)
    main()
