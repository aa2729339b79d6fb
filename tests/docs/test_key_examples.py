"""The example of every key in the reference is right where it stands."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = runpy.run_path(str(DOCS / "make_reference.py"))

CONVOLUTION = {"class_name": "Conv2D", "config": {"filters": 1, "kernel_size": 1, "activation": "sigmoid"}}
CLASSIFIER = [
    {"class_name": "GlobalAveragePooling2D"},
    {"class_name": "Dense", "config": {"units": 2, "activation": "log_softmax"}},
]
NETWORK = [
    {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 64, 64, 3]}},
    {"class_name": "Conv2D", "config": {"filters": 2, "kernel_size": 1, "activation": "log_softmax"}},
]


def examples() -> Iterator[Any]:
    for heading, name, model in REFERENCE["sections"]():
        for key in REFERENCE["documented"](model):
            example = REFERENCE["key_example"](model, key, heading)
            yield pytest.param(heading, name, model, example, id=f"{heading}.{name}.{key}")


def of_data(example: dict[str, Any]) -> dict[str, Any]:
    """The section; where targets are images, the whole of it, with a network and a loss for these."""
    if "validation_split" in example:
        return {"data": {"test_input_path": None, **example}}
    if "type" not in example:
        return {"data": example}
    paths = dict.fromkeys(("input_path", "test_input_path", "target_path", "test_target_path"), "scans/test/masks")
    loss = "BCE" if example.get("target_is_mask") else "MSE"
    return {"data": {**paths, **example}, "layers": [CONVOLUTION], "loss": {"function": loss}}


def part(heading: str, name: str, model: Any, example: dict[str, Any]) -> dict[str, Any]:
    """The part of a run file in which an example stands."""
    if heading == "data":
        return of_data(example)
    if heading == "":
        return example
    whole = {**REFERENCE["example"](model), **example}
    if heading == "slicers":
        return of_data({"type": "numpy", heading: [whole]})
    if heading == "optimizer":
        return {"optimizer": {"type": name, **whole}}
    if heading == "scheduler":
        return {"optimizer": {"type": "SGD", "lr_scheduler": {"type": name, **whole}}}
    if heading == "loss":
        targets = {"type": "images", "input_path": "scans/train/images", "target_path": "scans/train/masks"}
        data = {**targets, "target_is_mask": True, "transforms": []}
        return {"data": data, "layers": NETWORK, "loss": {"function": name, **whole}}
    if heading == "early_stopping":
        return {heading: whole}
    if heading == "random_patches":
        return of_data({"type": "images", "transforms": [{name: whole}]})
    return {"data": {"transforms": [{name: whole}]}}


@pytest.mark.parametrize(("heading", "name", "model", "example"), list(examples()))
def test_it_is_right(
    heading: str,
    name: str,
    model: Any,
    example: dict[str, Any],
    valid: Callable[[dict[str, Any]], None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.json").write_text(json.dumps(CLASSIFIER))
    # Whether there is a file to load is not the section's business, nor what fits a layer that of its keys.
    if heading in ("layers", "checkpoints"):
        model.model_validate({**REFERENCE["example"](model), **example})
    else:
        valid(part(heading, name, model, example))
