"""What a path of weights leads to, where it is no file that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rml_core.checkpoints import read
from rml_core.checkpoints.content import READ, no_file
from rml_core.config.problem import Problem, Refused

WHERE = "neural_network.checkpoints.load"
REMEDY = 'load it with TensorFlow and save its weights in one file: model.save_weights("model.weights.h5")'


@pytest.fixture
def tensorflow(tmp_path: Path) -> Path:
    """What `model.save("saved")` and `model.save_weights("weights")` of TensorFlow leave."""
    for name in ("saved/saved_model.pb", "saved/variables/variables.index", "weights.index", "folder/ckpt-1.index"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x00\x08")
    (tmp_path / "weights.data-00000-of-00001").write_bytes(b"\x00\x00\x08")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("saved", "a TensorFlow SavedModel"),
        ("saved/variables", "a folder with a TensorFlow checkpoint"),
        ("folder", "a folder with a TensorFlow checkpoint"),
        ("weights", "a TensorFlow checkpoint"),
        ("saved/variables/variables", "a TensorFlow checkpoint"),
    ],
)
def test_folders_and_names_of_tensorflow(tensorflow: Path, name: str, what: str):
    path = tensorflow / name
    problem = no_file(path, WHERE, "folder" if path.is_dir() else None)
    assert problem == Problem(WHERE, f"{path} is {what}, which is not read", READ, REMEDY)


@pytest.mark.parametrize("name", ["saved/saved_model.pb", "weights.index", "weights.data-00000-of-00001"])
def test_files_of_tensorflow(tensorflow: Path, name: str):
    what = "SavedModel" if name.endswith(".pb") else "checkpoint"
    with pytest.raises(Refused) as refused:
        read(tensorflow / name, WHERE)
    expected = f"{tensorflow / name} is a TensorFlow {what}, which is not read"
    assert refused.value.problems == (Problem(WHERE, expected, READ, REMEDY),)


def test_other_folders_and_nothing(tmp_path: Path):
    assert (
        str(no_file(tmp_path, WHERE, "folder")) == f"{WHERE}: {tmp_path} is a folder\n    allowed: a file with weights"
    )
    missing = tmp_path / "weights.h5"
    assert str(no_file(missing, WHERE, None)) == f"{WHERE}: {missing} does not exist\n    allowed: a file with weights"
