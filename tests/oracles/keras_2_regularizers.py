"""A few steps of real Keras 2 with regularisers, one of them on a frozen layer: writes keras_2_regularizers.json.

Run it in a virtual environment of its own: `pip install tensorflow-cpu==2.15.1`, then this file.
The model's JSON, its weights, samples; the losses that `train_on_batch` and `evaluate` report.
"""

import json
from pathlib import Path

import numpy as np
from tensorflow import keras

L, R = keras.layers, keras.regularizers


def main():
    model = keras.Sequential(
        [
            L.Conv2D(3, 2, kernel_regularizer=R.l1_l2(0.02, 0.03), bias_regularizer="l1", input_shape=(4, 5, 2)),
            L.BatchNormalization(gamma_regularizer="l2", beta_regularizer=R.L1(0.04), trainable=False),
            L.Flatten(),
            L.Dense(3, activation="tanh", activity_regularizer=R.L1L2(0.05, 0.06)),
            L.Dense(2, kernel_regularizer="l2", bias_regularizer="l1_l2", trainable=False),
        ]
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape) * rng.choice([-1, 1], weight.shape))
    for weight in model.get_layer("batch_normalization").weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    found = {
        "model": json.loads(model.to_json()),
        "weights": {
            f"{layer.name}:{weight.name.split('/')[-1].split(':')[0]}": weight.numpy().tolist()
            for layer in model.layers
            for weight in layer.weights
        },
        "inputs": rng.normal(size=(6, 4, 5, 2)).round(3).tolist(),
        "targets": rng.normal(size=(6, 2)).round(3).tolist(),
    }
    inputs, targets = (np.float32(found[key]) for key in ("inputs", "targets"))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    found["evaluated"] = model.evaluate(inputs, targets, batch_size=4, verbose=0)
    found["trained"] = [float(model.train_on_batch(inputs, targets)) for _ in range(3)]
    found["evaluated after"] = model.evaluate(inputs, targets, batch_size=4, verbose=0)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
