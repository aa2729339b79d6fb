"""The reference is what the models say, and every example in its tables is right."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rml_core.layers import LAYERS
from rml_core.loss import LOSSES
from rml_core.lr_scheduler import SCHEDULERS
from rml_core.optimizer import OPTIMIZERS
from rml_core.transforms import TRANSFORMS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference.md").read_text()

# The tables of keys, whose examples have a test of their own, are left out.
REST = re.sub(r"^\| key \|.*\n(\|.*\n)+", "", PAGE, flags=re.MULTILINE)
# A member of a table by itself: a line of code that is an object, in a row or on a line of its own.
MEMBERS = [json.loads(code) for code in re.findall(r"(?:^|\| )`(\{\".+\})`(?: \||$)", REST, re.MULTILINE)]


def test_the_reference_is_what_the_models_say() -> None:
    assert runpy.run_path(str(DOCS / "make_reference.py"))["text"]() == PAGE, "`make docs` writes it anew"


def test_every_member_of_every_table_has_an_example() -> None:
    shown = [next(iter(member.values())) if len(member) > 1 else next(iter(member)) for member in MEMBERS]
    named = [member.get("function", name) for member, name in zip(MEMBERS, shown, strict=True)]
    expected = {*LAYERS, *LOSSES, *SCHEDULERS, *OPTIMIZERS, *TRANSFORMS}
    assert sorted(expected - set(named)) == []


def in_its_place(member: dict[str, Any]) -> dict[str, Any]:
    """The part of a run file in which the member stands."""
    (name, value), *_ = member.items()
    if name == "class_name":
        rank = re.search("[123]D", value)
        sizes = [16] * (int(rank[0][0]) if rank else 2)
        head = {"class_name": "InputLayer", "config": {"name": "a", "batch_input_shape": [None, *sizes, 3]}}
        between = {"class_name": "Activation", "config": {"name": "b", "activation": "relu"}}
        network = [member] if value.startswith("Input") else [head, between, member]
        return {"layers": network, "data": {"transforms": []}}
    if name == "function":
        return {"loss": member}
    if name == "random_patches":
        convolution = {"class_name": "Conv2D", "config": {"filters": 3, "kernel_size": 1}}
        data = {"type": "images", "input_path": "pictures/train", "transforms": [member]}
        return {"data": data, "layers": [convolution], "loss": {"function": "MSE"}}
    if name in TRANSFORMS:
        return {"data": {"transforms": [member, {"resize": [32, 32]}]}}
    if name in ("input_type", "target_type"):
        return {"data": member}
    return {"optimizer": member if value in OPTIMIZERS else {"type": "SGD", "lr_scheduler": member}}


@pytest.mark.parametrize("member", MEMBERS, ids=json.dumps)
def test_the_example_of_a_member_is_right(member: dict[str, Any], valid: Callable[[dict[str, Any]], None]) -> None:
    valid(in_its_place(member))
