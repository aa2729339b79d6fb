"""Every layer as real Keras 2 writes it, with its own numbers: writes keras_2_layers.json.gz and .npz beside this file.

Run it in a virtual environment of its own: `pip install tensorflow-cpu==2.15.1`, then `python keras_2_layers.py`.
Weights and inputs follow from their names (`drawn`), and are not written. Each network: its JSON, the output in
evaluation, and of layers with moving statistics the output and those statistics after each of three steps (without an
update of the weights). The arrays lie one behind the other in `numbers`, in the order of the JSON.
"""

import gzip
import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras

L = keras.layers
SHAPES = {0: (5,), 1: (7, 4), 2: (6, 5, 4), 3: (4, 5, 3, 4)}


def drawn(name, shape):
    """Numbers that follow from the name; positive ones for a variance."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if "variance" in name:
        return np.float32(random.uniform(0.5, 1.5, size=shape))
    return np.float32(random.normal(size=shape) / max(1.0, np.prod(shape[:-1])) ** 0.5)


def leaves(model, prefix=""):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def convolutions():
    for rank, padding in itertools.product((1, 2, 3), ("valid", "same")):
        for given in ({"strides": 2}, {"dilation_rate": 2}, {"groups": 2, "use_bias": False, "activation": "elu"}):
            yield getattr(L, f"Conv{rank}D")(4, 2 if padding == "valid" else 3, padding=padding, **given), rank
        transposed = getattr(L, f"Conv{rank}DTranspose")
        yield transposed(3, 3, strides=2, padding=padding, activation="swish"), rank
        yield transposed(3, 2, strides=2, padding=padding, output_padding=1), rank
        yield transposed(3, 4, strides=3, padding=padding, use_bias=False), rank
    for given in ({}, {"strides": 2}, {"dilation_rate": 2}):
        yield L.Conv1D(4, 3, padding="causal", **given), 1
        yield L.SeparableConv1D(4, 3, padding="causal", depth_multiplier=2, **given), 1
    for rank, padding, multiplier in itertools.product((1, 2), ("valid", "same"), (1, 2)):
        for given in ({}, {"strides": 2}, {"dilation_rate": 2}):
            more = {"padding": padding, "depth_multiplier": multiplier, **given}
            yield getattr(L, f"DepthwiseConv{rank}D")(3, **more), rank
            yield getattr(L, f"SeparableConv{rank}D")(5, 3, activation="relu", **more), rank


def normalizations():
    for rank in range(4):
        yield L.BatchNormalization(momentum=0.7, epsilon=0.01), rank
        yield L.LayerNormalization(epsilon=0.01), rank
        yield L.GroupNormalization(2 if rank else 5, epsilon=0.01), rank
        yield L.GroupNormalization(-1), rank
    yield L.BatchNormalization(momentum=0.7, center=False), 2
    yield L.BatchNormalization(momentum=0.7, scale=False), 2
    yield L.BatchNormalization(momentum=0.7, axis=1), 1
    yield L.BatchNormalization(momentum=0.7, axis=2), 2
    yield L.BatchNormalization(momentum=0.7, trainable=False), 2
    for axis in (1, [1, 2], [2, 3], [1, 2, 3]):
        yield L.LayerNormalization(axis=axis), 2
    yield L.LayerNormalization(center=False), 2
    yield L.LayerNormalization(scale=False), 2
    yield L.Normalization(), 2
    yield L.Normalization(axis=None), 2
    yield L.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 0.5, 3.0]), 2
    yield L.Rescaling(0.5, -1.0), 2


def activations():
    names = "linear relu elu selu gelu softmax sigmoid hard_sigmoid tanh softplus softsign swish mish exponential"
    for name in names.split():
        yield L.Activation(name), 0
        yield L.Conv2D(2, 2, activation=name), 2
    for function in (tf.nn.log_softmax, tf.nn.softmax, tf.nn.leaky_relu, tf.nn.relu6, tf.nn.elu, tf.nn.silu):
        yield L.Dense(3, activation=function), 1
    for layer in (L.LeakyReLU(alpha=0.1), L.ReLU(6.0, 0.1, 0.2), L.ELU(0.4), L.Softmax(axis=1)):
        yield L.Conv2D(2, 2, activation=layer), 2
    for rank in range(4):
        for layer in (L.PReLU(), L.LeakyReLU(), L.LeakyReLU(alpha=0.1), L.ELU(alpha=0.4), L.ReLU(), L.Softmax()):
            yield layer, rank
    yield L.PReLU(shared_axes=[1, 2]), 2
    yield L.PReLU(shared_axes=[1, -1]), 2
    yield L.Softmax(axis=[1, 2]), 2
    yield L.ReLU(max_value=0.5, negative_slope=0.2, threshold=0.1), 2


def others():
    for kind, rank, padding in itertools.product(("Max", "Average"), (1, 2, 3), ("valid", "same")):
        for window, strides in ((2, None), (3, 2), (2, 1)):
            yield getattr(L, f"{kind}Pooling{rank}D")(window, strides=strides, padding=padding), rank
    for kind, rank, kept in itertools.product(("Max", "Average"), (1, 2, 3), (False, True)):
        yield getattr(L, f"Global{kind}Pooling{rank}D")(keepdims=kept), rank
    for rank in (1, 2, 3):
        yield getattr(L, f"UpSampling{rank}D")(2), rank
        yield getattr(L, f"ZeroPadding{rank}D")(1), rank
        yield getattr(L, f"Cropping{rank}D")(1), rank
    for how, size in itertools.product(("bilinear", "bicubic", "lanczos3", "lanczos5", "area"), (2, (3, 1))):
        yield L.UpSampling2D(size, interpolation=how), 2
    yield L.ZeroPadding2D(((0, 1), (2, 0))), 2
    yield L.Cropping2D(((0, 1), (2, 0))), 2
    yield L.Cropping3D(((0, 1), (2, 0), (1, 1))), 3
    for dims in ((2, 1, 3), (3, 1, 2), (2, 3, 1)):
        yield L.Permute(dims), 2
    yield L.Reshape((10, 12)), 2
    yield L.Reshape((2, -1, 6)), 2
    for rank in range(4):
        yield L.Flatten(), rank
        yield L.Dense(3), rank
        yield L.Dropout(0.0), rank


def merging():
    x, y, row = keras.Input((4, 3)), L.Dense(3), L.GlobalMaxPooling1D()
    for kind in ("Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"):
        yield kind, keras.Model(x, getattr(L, kind)()([x, y(x), L.ReLU()(x)]))
    yield "Subtract", keras.Model(x, L.Subtract()([x, y(x)]))
    yield "Concatenate along 1", keras.Model(x, L.Concatenate(axis=1)([x, y(x)]))
    yield "Multiply by a row", keras.Model(x, L.Multiply()([x, L.Reshape((1, 3))(row(x))]))
    z = L.Dense(3)(x)
    yield "arithmetic", keras.Model(x, (3 - (z + 1.0) * 0.5) / 2 - x * (1 - z) + (2.0 + z) / (1 + tf.nn.relu6(z)))
    yield "functions", keras.Model(x, tf.nn.relu(z) + tf.sigmoid(z) * tf.math.tanh(x) + tf.maximum(z, 0.1))


def calls():
    """What is called in a mode of its own."""

    def block(name, training=None):
        x = keras.Input((4, 3))
        return keras.Model(
            x, L.ReLU()(L.BatchNormalization(momentum=0.7, name="norm")(x, training=training)), name=name
        )

    x = keras.Input((4, 3))
    yield "a layer in evaluation mode", keras.Model(x, L.BatchNormalization(momentum=0.7)(x, training=False))
    yield "a layer in training mode", keras.Model(x, L.BatchNormalization(momentum=0.7)(x, training=True))
    y = block("model")(x, training=False)
    yield "a model in evaluation mode", keras.Model(x, L.BatchNormalization(momentum=0.7, name="head")(y))
    yield "the inner call outranks", keras.Model(x, block("model", training=True)(x, training=False))
    shared = L.BatchNormalization(momentum=0.7, name="shared")
    yield "one of two calls", keras.Model(x, L.Add()([shared(x), shared(L.ReLU()(x), training=False)]))


def wrappings():
    names = [L.Dense(4, name="a/b", input_shape=(5,)), L.BatchNormalization(momentum=0.7, name="a/b/norm"), L.ReLU()]
    yield "names with slashes", keras.Sequential(names)
    policy = keras.mixed_precision.Policy("float32")
    yield "a policy", keras.Sequential([L.Dense(4, input_shape=(5,), dtype=policy), L.Dense(2, dtype="float32")])
    inner = keras.Sequential([L.Dense(5, input_shape=(5,)), L.ELU()], name="inner")
    x = keras.Input((5,))
    yield "a model in a model", keras.Model(x, L.Dense(2, name="out/put")(inner(inner(x))))


def older():
    """What earlier versions of Keras 2 wrote, which this one reads."""
    written = json.loads(keras.Sequential([L.Dense(4, input_shape=(5,)), L.Dense(2)]).to_json())
    stack = [layer for layer in written["config"]["layers"] if layer["class_name"] != "InputLayer"]
    for layer in stack:
        del layer["config"]["name"]
    yield "a list without names", {"class_name": "Sequential", "config": stack, "keras_version": "2.1.6"}
    x = keras.Input((5,))
    written = json.loads(keras.Model(x, L.Add()([x, L.Dense(5)(x)])).to_json())
    yield "class Model", {**written, "class_name": "Model", "keras_version": "2.2.4"}


def networks():
    for family in (convolutions, normalizations, activations, others):
        for number, (layer, rank) in enumerate(family()):
            name = f"{family.__name__} {number}: {type(layer).__name__}, {rank} axes"
            yield name, keras.Sequential([keras.Input(SHAPES[rank]), layer])
    for family in (merging, calls, wrappings):
        for name, model in family():
            yield f"{family.__name__}: {name}", model
    for name, source in older():
        keras.backend.clear_session()
        yield f"older: {name}", (keras.models.model_from_json(json.dumps(source)), source)


def main():
    here, written, numbers = Path(__file__).parent, {}, []
    for name, model in networks():
        model, source = model if isinstance(model, tuple) else (model, json.loads(model.to_json()))
        keras.backend.clear_session()
        for layer, each in leaves(model):
            for number, weight in enumerate(each.weights):
                if weight.dtype.is_floating:
                    kind = "variance" if "variance" in weight.name else "weight"
                    weight.assign(drawn(f"{name}:{layer}:{kind} {number}", weight.shape))
            if isinstance(each, L.Normalization):
                each.finalize_state()
        x = drawn(f"{name}:input", (2, *model.input_shape[1:])) * 2
        arrays = {"evaluated": model(x, training=False).numpy()}
        moving = [(f"{layer}:{number}", weight) for layer, each in leaves(model)
                  for number, weight in enumerate(each.weights) if "moving" in weight.name]  # fmt: skip
        for step in range(1, 4) if moving else ():
            arrays[f"trained {step}"] = model(x, training=True).numpy()
            arrays |= {f"moved {step}:{place}": weight.numpy() for place, weight in moving}
        counted = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        written[name] = {
            "model": source,
            "parameters": model.count_params(),
            "trainable": counted,
            "output_shape": model.output_shape[1:],
            "arrays": {key: values.shape for key, values in arrays.items()},
        }
        numbers += [values.ravel() for values in arrays.values()]
    packed = gzip.compress(json.dumps(written).encode(), mtime=0)
    (here / "keras_2_layers.json.gz").write_bytes(packed)
    np.savez_compressed(here / "keras_2_layers.npz", numbers=np.concatenate(numbers))


if __name__ == "__main__":
    main()
