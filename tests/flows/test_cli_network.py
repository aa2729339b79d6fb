"""`rml network`: counted as Keras counts."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]


def test_network_of_a_run_file(classification: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path):
    """The first layer says no shape: the samples do."""
    file = run_file(classification)
    table = (
        "layer  class         output shape       parameters  from\n"
        "--------------------------------------------------------\n"
        "conv   Conv2D        (None, 12, 12, 4)          40\n"
        "pool   MaxPooling2D  (None, 6, 6, 4)             0  conv\n"
        "drop   Dropout       (None, 6, 6, 4)             0  pool\n"
        "flat   Flatten       (None, 144)                 0  drop\n"
        "dense  Dense         (None, 2)                 290  flat\n"
        "\n"
        "330 parameters, 330 trainable, 0 not\n"
    )
    dot = tmp_path / "network.dot"
    assert rml("network", file, "--dot", dot) == (0, table, "")
    assert dot.read_text().startswith("digraph network {\n")
    assert dot.read_text().count(" -> ") == 4
    assert rml("network", file, "--json") == (
        0,
        '{"parameters": 330, "trainable": 330, "layers": 5, "output_shape": [null, 2]}\n',
        "",
    )
    assert rml("network", file, "--dot", "/proc/network.dot") == (
        2,
        "",
        f"{file}: 1 problem\n\n--dot: /proc/network.dot cannot be written: no such file or directory\n",
    )


def keras_models() -> dict[str, Any]:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    layers = keras.layers
    inputs = layers.Input((32, 32, 3))
    left = layers.Conv2D(8, 3, padding="same", strides=2)(inputs)
    right = layers.MaxPooling2D(2)(inputs)
    both = layers.Concatenate()([left, right])
    both = layers.BatchNormalization()(both)
    inner = keras.Sequential([layers.Conv2D(4, 1), layers.BatchNormalization(trainable=False)], name="inner")
    functional = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(inner(both))))
    sequential = keras.Sequential(
        [layers.Input((None, None, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.UpSampling2D(2)]
    )
    frozen = keras.Sequential([layers.Input((16,)), layers.Dense(8), layers.Dense(2)])
    frozen.layers[0].trainable = False
    return {"functional": functional, "unknown sizes": sequential, "frozen": frozen}


@pytest.mark.parametrize("name", ["functional", "unknown sizes", "frozen"])
@pytest.mark.parametrize("where", ["its own file", "a string in its own file", "a run file"])
def test_network_counts_as_keras_counts(
    classification: dict[str, Any], rml: Rml, run_file: RunFile, name: str, where: str
):
    model = keras_models()[name]
    written = json.loads(model.to_json())
    count = len(written["config"]["layers"])
    if where == "a run file":
        classification["neural_network"]["layers"] = written
        written = classification
    elif where == "a string in its own file":
        written = json.dumps(written)
    status, output, errors = rml("network", run_file(written, "network.json"), "--json")
    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "parameters": model.count_params(),
        "trainable": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "layers": count,
        "output_shape": list(model.output_shape),
    }


KERAS_2 = {
    "class_name": "Functional",
    "keras_version": "2.15.0",
    "backend": "tensorflow",
    "config": {
        "name": "model",
        "trainable": True,
        "layers": [
            {
                "class_name": "InputLayer",
                "config": {"batch_input_shape": [None, None, None, 1], "dtype": "float32", "name": "in"},
                "name": "in",
                "inbound_nodes": [],
            },
            {
                "class_name": "Conv2D",
                "config": {"name": "conv", "filters": 2, "kernel_size": [3, 3], "padding": "valid"},
                "name": "conv",
                "inbound_nodes": [[["in", 0, 0, {}]]],
            },
            {
                "class_name": "BatchNormalization",
                "config": {"name": "norm", "axis": [3]},
                "name": "norm",
                "inbound_nodes": [[["conv", 0, 0, {}]]],
            },
        ],
        "input_layers": [["in", 0, 0]],
        "output_layers": [["norm", 0, 0]],
    },
}


def test_network_in_the_way_of_keras_2(rml: Rml, run_file: RunFile):
    assert rml("network", run_file(KERAS_2, "model.json"), "--json") == (
        0,
        '{"parameters": 28, "trainable": 24, "layers": 3, "output_shape": [null, null, null, 2]}\n',
        "",
    )


@pytest.mark.parametrize("end", [".h5", ".keras"])
def test_network_of_a_whole_model_that_keras_saved(rml: Rml, tmp_path: Path, end: str):
    with zipfile.ZipFile(Path(__file__).parents[1] / "oracles" / "keras_2_weights_2.15.zip") as archive:
        file = archive.extract(f"unet{end}", tmp_path)
    assert rml("network", file, "--json") == (
        0,
        '{"parameters": 822, "trainable": 808, "layers": 15, "output_shape": [null, 8, 8, 2]}\n',
        "",
    )


def test_network_of_a_folder_of_tensorflow(rml: Rml, tmp_path: Path):
    (tmp_path / "saved_model.pb").touch()
    assert rml("network", tmp_path) == (
        2,
        "",
        f'{tmp_path}: 1 problem\n\n"{tmp_path}" is a TensorFlow SavedModel, which is not read\n'
        "    allowed: what Keras's model.to_json() writes, or a whole model: .h5, .keras\n"
        '    load it with TensorFlow, and write its JSON: open("model.json", "w").write(model.to_json())\n',
    )
