"""Networks as real Keras 2 writes them, with its own numbers: writes keras_2.json and keras_2.npz beside this file.

Run it in a virtual environment of its own: `pip install tensorflow-cpu==2.15.1`, then `python keras_2.py`.
Each network: its JSON, its weights, an input, the output in evaluation, and after two training steps (without an
update of the weights) the outputs and the moving statistics.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras

L = keras.layers


def image():
    return keras.Sequential(
        [
            L.Conv2D(3, 3, strides=2, padding="same", input_shape=(9, 8, 2), name="first/conv"),
            L.BatchNormalization(momentum=0.7),
            L.LeakyReLU(),
            L.AveragePooling2D(3, strides=2, padding="same"),
            L.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1, activation="hard_sigmoid"),
            L.UpSampling2D((2, 3), interpolation="bilinear"),
            L.AveragePooling2D(2, strides=1, padding="same"),
            L.Conv2D(4, 1, activation=tf.nn.log_softmax),
        ],
        name="image",
    )


def volume():
    x = keras.Input((6, 5, 4, 2))
    y = L.BatchNormalization(momentum=0.7)(L.Conv3D(3, 2, padding="same")(x))
    y = L.Conv3DTranspose(2, 3, strides=2, padding="same")(L.MaxPooling3D(2, padding="same")(y))
    y = L.AveragePooling3D(3, strides=2, padding="same")(L.ZeroPadding3D(((0, 1), (1, 0), (2, 1)))(y))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.Flatten()(y)), name="volume")


def line():
    x = keras.Input((11, 2))
    y = L.BatchNormalization(momentum=0.7)(L.Conv1D(4, 4, strides=3, padding="same")(x))
    y = L.Conv1DTranspose(3, 4, strides=3, padding="valid", output_padding=2)(L.Activation("swish")(y))
    y = L.AveragePooling1D(4, strides=3, padding="same")(L.UpSampling1D(2)(y))
    return keras.Model(x, L.BatchNormalization(momentum=0.7)(L.Dense(3, activation="gelu")(L.GlobalMaxPooling1D()(y))))


def nested():
    """Shared layers and models, nested twice, one frozen."""

    def block(name, trainable=True):
        x = keras.Input((6, 6, 3))
        y = L.BatchNormalization(momentum=0.7, name="norm")(L.Conv2D(3, 3, padding="same", name="conv")(x))
        model = keras.Model(x, L.Add()([x, L.Activation("elu")(y)]), name=name)
        model.trainable = trainable
        return model

    x = keras.Input((6, 6, 3), name="image")
    shared, twice = L.Conv2D(3, 3, padding="same", name="shared"), block("twice")
    tower = keras.Sequential([keras.Input((6, 6, 3)), block("inner"), L.ReLU(6.0, 0.1, 0.2)], name="tower")
    y = L.Subtract()([twice(shared(x)), tower(x)])
    y = block("frozen", trainable=False)(twice(shared(y)))
    return keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D(keepdims=True)(y)), name="nested")


def leaves(model, prefix=""):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def main():
    here, networks, arrays = Path(__file__).parent, {}, {}
    rng = np.random.default_rng(0)
    for make in (image, volume, line, nested):
        model, name = make(), make.__name__
        for layer, each in leaves(model):
            for weight in each.weights:
                values = rng.normal(size=weight.shape) / max(1.0, np.prod(weight.shape[:-1])) ** 0.5
                if "variance" in weight.name or "gamma" in weight.name:
                    values = rng.uniform(0.5, 1.5, size=weight.shape)
                weight.assign(values)
                arrays[f"{name}:weight:{layer}:{weight.name.split('/')[-1].split(':')[0]}"] = weight.numpy()
        x = rng.normal(size=(3, *model.input_shape[1:])).astype("float32")
        arrays |= {f"{name}:input": x, f"{name}:evaluated": model(x, training=False).numpy()}
        for step in (1, 2):
            arrays[f"{name}:trained {step}"] = model(x, training=True).numpy()
        for layer, each in leaves(model):
            for weight in each.weights:
                if "moving" in weight.name:
                    arrays[f"{name}:moved:{layer}:{weight.name.split('/')[-1].split(':')[0]}"] = weight.numpy()
        networks[name] = {
            "model": json.loads(model.to_json()),
            "parameters": model.count_params(),
            "trainable": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        }
    (here / "keras_2.json").write_text(json.dumps(networks, indent=1) + "\n")
    np.savez_compressed(here / "keras_2.npz", **arrays)


if __name__ == "__main__":
    main()
