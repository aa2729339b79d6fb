"""Broken run files: exit status 2, the place named, never a traceback."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import cli

NETWORK = {
    "outfile": "out.txt",
    "num_epochs": 3,
    "debug": False,
    "debug_interval": 2,
    "seed": 1,
    "precision": "single",
    "device": "cpu",
    "layers": [
        {"class_name": "Conv2D", "config": {"name": "conv", "filters": 4, "kernel_size": [3, 3], "padding": "same"}},
        {"class_name": "Activation", "config": {"name": "act", "activation": "relu"}},
        {"class_name": "Flatten", "config": {"name": "flat"}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
    ],
    "data": {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "train",
        "test_input_path": "test",
        "batch_size": 4,
        "test_batch_size": 8,
        "preload": True,
        "transforms": [
            {"resize": [8, 8]},
            {"random_horizontal_flip": 0.5},
            {"normalize": {"mean": 0.3, "std": 0.5}},
        ],
    },
    "optimizer": {
        "type": "SGD",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "lr_scheduler": {"type": "Step", "gamma": 0.1, "step_size": 2},
    },
    "loss": {"function": "NLL", "weight": [0.5, 0.5]},
    "checkpoints": {"save": "checkpoints", "interval": 2, "keep": 3},
    "early_stopping": {"metric": "loss", "patience": 2},
}
SEGMENTATION = {
    "layers": [
        {"class_name": "Conv2D", "config": {"name": "c", "filters": 1, "kernel_size": 1, "activation": "sigmoid"}}
    ],
    "data": {
        "type": "images",
        "input_path": "images",
        "target_path": "masks",
        "target_is_mask": True,
        "target_grayscale": True,
        "input_transforms": [{"convert_color": "BGR2RGB"}],
        "transforms": [{"center_crop": [8, 8]}, {"rotate": 30}, {"random_vertical_flip": 0.5}],
    },
    "optimizer": {"type": "RMSprop", "learning_rate": 0.1, "alpha": 0.9},
    "loss": {"function": "Dice", "smooth": 1e-6},
}
VOLUMES = {
    "layers": [
        {"class_name": "Conv2D", "config": {"name": "c", "filters": 3, "kernel_size": 3, "padding": "same"}},
        {"class_name": "Activation", "config": {"name": "act", "activation": "log_softmax"}},
    ],
    "data": {
        "type": "hdf5",
        "input_path": "v.h5:/a",
        "target_path": "v.h5:/b",
        "test_input_path": "w.h5",
        "target_is_mask": True,
        "transforms": [{"normalize": {"mean": 0.3, "std": 0.5}}],
        "slicers": [
            {"name": "rows", "sizes": [1, 8, 8], "padding": [0, 2, 2], "padding_mode": "edge"},
            {
                "name": "columns",
                "sizes": [8, 1, 8],
                "padded_sizes": [12, 1, 12],
                "strides": [4, 1, 8],
                "transpose": True,
            },
        ],
        "hdf5_outfile": "p.h5",
        "hdf5_precision": "half",
        "hdf5_output": "values",
        "overlap_blend": "gaussian",
    },
    "optimizer": {"type": "Adam"},
    "loss": {"function": "NLL"},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in `value`."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, member in members for place in places(member, (*path, key)))]


def text_of(path: tuple[Any, ...]) -> str:
    return "neural_network" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def parent_of(section: Any, path: tuple[Any, ...]) -> Any:
    for part in path[:-1]:
        section = section[part]
    return section


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, str]:
    """(text of a broken run file, what its problems must name)."""
    section = copy.deepcopy(draw(st.sampled_from([NETWORK, SEGMENTATION, VOLUMES])))
    everything = [path for path in places(section) if path]
    kind = draw(st.sampled_from(["misspelt", "type", "value", "missing", "cut", "text"]))
    if kind == "misspelt":
        path = draw(st.sampled_from([path for path in everything if isinstance(path[-1], str)]))
        parent = parent_of(section, path)
        position = draw(st.integers(0, len(path[-1])))
        key = path[-1][:position] + draw(st.sampled_from("xqz_")) + path[-1][position:]
        parent[key] = parent.pop(path[-1])
        # A misspelt transform is no key of an object but the name of a transform.
        named = text_of(path[:-1])
    elif kind == "type":
        path = draw(st.sampled_from([path for path in everything if path != ("layers",)]))
        wrong = draw(st.sampled_from([{"nonsense": 1}, [[]], [{}], {"": None}]))
        parent_of(section, path)[path[-1]] = wrong
        named = text_of(path[:1])
    elif kind == "value":
        path, value = draw(st.sampled_from(BAD_VALUES))
        section = copy.deepcopy(NETWORK)
        parent_of(section, path)[path[-1]] = value
        named = text_of(path)
    elif kind == "missing":
        key = draw(st.sampled_from(["layers", "data", "optimizer", "loss"]))
        del section[key]
        named = text_of((key,))
    elif kind == "cut":
        text = json.dumps({"neural_network": section})
        return text[: draw(st.integers(0, len(text) - 1))], "run.json"
    else:
        return draw(st.sampled_from(["", "null", "[]", "3", '"x"', "{}", "NaN", "{'a': 1}", "[" * 5000, "\x00"])), ""
    return json.dumps({"neural_network": section}), named


BAD_VALUES: list[tuple[tuple[Any, ...], Any]] = [
    (("num_epochs",), 0),
    (("num_epochs",), 2.5),
    (("num_epochs",), "3"),
    (("seed",), -1),
    (("precision",), "quadruple"),
    (("device",), "tpu"),
    (("debug",), 1),
    (("optimizer", "type"), "Adamm"),
    (("optimizer", "learning_rate"), 0),
    (("optimizer", "learning_rate"), "fast"),
    (("optimizer", "lr_scheduler", "type"), "Cosine"),
    (("optimizer", "lr_scheduler", "step_size"), 0),
    (("loss", "function"), "NLLL"),
    (("loss", "weight"), [-1, 2]),
    (("data", "input_type"), "jpeg"),
    (("data", "batch_size"), 0),
    (("data", "transforms", 0, "resize"), [8]),
    (("data", "transforms", 0, "resize"), [8, -8]),
    (("data", "transforms", 1, "random_horizontal_flip"), 1.5),
    (("checkpoints", "interval"), 0),
    (("layers", 0, "class_name"), "Conv2"),
    (("layers", 0, "config", "filters"), 0),
    (("layers", 0, "config", "kernel_size"), [3, 3, 3]),
    (("layers", 0, "config", "padding"), "some"),
    (("layers", 1, "config", "activation"), "relo"),
    (("layers", 3, "config", "units"), -2),
    (("early_stopping", "patience"), 0),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@given(case=broken())
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_broken_run_file_is_refused_with_the_place(folder: Path, case: tuple[str, str]):
    text, named = case
    file = folder / "run.json"
    file.write_text(text)
    output, errors = io.StringIO(), io.StringIO()
    sys.argv = ["rml", "validate", str(file), "--skip-data"]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2, (text, output.getvalue(), errors.getvalue())
    assert named in errors.getvalue()
    assert "Traceback" not in errors.getvalue()
    assert output.getvalue() == ""


@pytest.mark.parametrize("section", [NETWORK, SEGMENTATION, VOLUMES])
def test_the_run_files_are_right_before_they_are_broken(folder: Path, section: dict[str, Any], rml: Any):
    file = folder / "run.json"
    file.write_text(json.dumps({"neural_network": section}))
    assert rml("validate", file, "--skip-data") == (0, f"{file}: ok\n", "")
