"""The network's JSON inside files of whole models."""

import io
import json
import os
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import pytest

from rml_core.config.problem import Refused
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

KERAS_2 = Path(__file__).parents[2] / "oracles" / "keras_2_weights_2.15.zip"
TO_JSON = 'open("model.json", "w").write(model.to_json())'
FROM_WHOLE = f"write its JSON beside it: {TO_JSON}"
FROM_CODE = f"the JSON comes from the code that built it: {TO_JSON}; if others sent you the file, ask them for it"
ALLOWED = "what Keras's model.to_json() writes, or a whole model: .h5, .keras"


@pytest.mark.parametrize("end", [".h5", ".keras"])
@pytest.mark.parametrize("name", ["separable", "unet", "nested"])
def test_models_of_keras_2(tmp_path, name, end):
    with zipfile.ZipFile(KERAS_2) as archive:
        archive.extract(name + end, tmp_path)
        expected = infer(read(json.loads(archive.read("networks.json"))[name], "layers", tmp_path), None)
    found = infer(read(name + end, "layers", tmp_path), None)
    assert found.graph.keras_version == 2
    assert (found.rows, found.graph.nodes) == (expected.rows, expected.graph.nodes)


@pytest.mark.parametrize("end", [".h5", ".keras"])
def test_models_of_keras_3(tmp_path, end):
    x = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3, padding="same")], name="inner")
    y = keras.layers.Conv2D(4, 3, padding="same", activation="hard_sigmoid")(x)
    model = keras.Model(x, keras.layers.Add()([y, inner(inner(y))]))
    model.save(tmp_path / f"model{end}")
    expected = infer(read(json.loads(model.to_json()), "layers", tmp_path), None)
    found = infer(read(f"model{end}", "layers", tmp_path), None)
    assert found.graph.keras_version == 3
    assert (found.rows, found.graph.nodes) == (expected.rows, expected.graph.nodes)


def weights_alone():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = ["a"]
    return buffer.getvalue()


def another_archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (weights_alone(), "holds weights and no network", FROM_CODE),
        (another_archive(), "is an archive without the network of a Keras model", FROM_WHOLE),
        (another_archive()[:-5], "is damaged: File is not a zip file", FROM_WHOLE),
        (weights_alone()[:9], "is damaged: ", FROM_WHOLE),
    ],
    # An archive holds the time: the processes that share the tests out would each have other names for them.
    ids=["weights", "archive", "part of an archive", "part of weights"],
)
def test_files_without_a_network(tmp_path, content, what, remedy):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(Refused) as refused:
        read("model", "layers", tmp_path)
    (problem,) = refused.value.problems
    assert problem.what.startswith(f'"model" {what}')
    assert (problem.where, problem.allowed, problem.remedy) == ("layers", ALLOWED, remedy)


@pytest.mark.parametrize("given", ["saved", "saved/saved_model.pb"])
def test_a_folder_of_tensorflow(tmp_path, given):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"graph")
    with pytest.raises(Refused) as refused:
        read(given, "layers", tmp_path)
    assert str(refused.value) == (
        f'layers: "{given}" is a TensorFlow SavedModel, which is not read\n    allowed: {ALLOWED}\n'
        f"    load it with TensorFlow, and write its JSON: {TO_JSON}"
    )
