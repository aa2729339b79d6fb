"""The schema that Prefect has of a run file: never stricter than the validator, and a form that sends no more than what
was filled in."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.utilities.schema_tools.validation import preprocess_schema, validate
from pydantic import BaseModel

from flows.form import section_schema
from flows.retrain import retrain
from flows.rml import rml
from rml_core.checkpoints.section import Checkpoints
from rml_core.config.problem import Refused
from rml_core.config.section import keys_of, parse
from rml_core.data.section import Data
from rml_core.loss import LOSSES
from rml_core.lr_scheduler import SCHEDULERS
from rml_core.optimizer import OPTIMIZERS
from rml_core.run import ROOT, EarlyStopping, RunFile
from rml_core.slicers.section import SliceSection
from rml_core.transforms import TRANSFORMS

PUBLISHED = rml.parameters.model_dump_for_openapi()
FORM = section_schema()
# As the server does it, once for all.
PREPARED = preprocess_schema(PUBLISHED)
LAYERS: list[Any] = [
    [{"class_name": "Dense", "config": {"units": 2}}],
    [],
    {"class_name": "Sequential", "config": {"layers": []}},
    {"class_name": "Functional", "config": {}, "keras_version": "2.15.0", "backend": "tensorflow"},
    "network.json",
]
BASE: dict[str, Any] = {"layers": LAYERS[0], "data": {"type": "images", "input_path": "a", "target_path": "a"}}


def _names(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (name for name in part.get("enum", ()) if isinstance(name, str))
        for member in part.values():
            yield from _names(member)
    elif isinstance(part, list):
        for member in part:
            yield from _names(member)


NAMES = sorted(set(_names(FORM)))
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, 0.0, 0.5, 1.0, 2.0, 1e-3, 1e-300, 10**12, -0.5),
    *("", "x", "a/b.h5", "s3://bucket/x", "a.h5:/group/name", "out.txt", "cuda:1"),
    *([], [1], [0], [1, 2], [8, 8, 8], [0.5], [0.1, 0.2], [None], [[1, 2]], ["x"], {}, {"mean": 0.5}, {"mean": [1, 2]}),
    *({"l1": 0.1}, {"number": 2, "size": 3}, [{"resize": [4, 4]}, {"NORMALIZE": {}}], [{"sizes": [4, 4]}]),
]


def _required(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: about.examples[0] for name, about in model.model_fields.items() if about.is_required() and about.examples
    }


def _places() -> Iterator[tuple[tuple[str | int, ...], type[BaseModel], dict[str, Any]]]:
    """Where each section's model stands: the way to it, the model, and the section with what it needs."""
    yield (), RunFile, {}
    yield ("data",), Data, BASE["data"]
    yield ("data", "slicers", 0), SliceSection, {"sizes": [4, 4]}
    yield ("checkpoints",), Checkpoints, {}
    yield ("early_stopping",), EarlyStopping, {"patience": 2}
    for name, optimizer in OPTIMIZERS.items():
        yield ("optimizer",), optimizer, {"type": name}
    for name, scheduler in SCHEDULERS.items():
        yield ("optimizer", "lr_scheduler"), scheduler, {**_required(scheduler), "type": name}
    for name, loss in LOSSES.items():
        yield ("loss",), loss, {"function": name}
    for name, transform in TRANSFORMS.items():
        inner = {"number": 2, "size": 3} if name == "random_patches" else {}
        yield ("data", "transforms", 0), transform, {name: _required(transform).get(name, inner)}


PLACES = list(_places())


def _keys(model: type[BaseModel]) -> list[str]:
    """What layers may be is said where they are read."""
    return [key for key in keys_of(model) if key != "layers"]


def _with(place: tuple[str | int, ...], content: Any) -> dict[str, Any]:
    section = copy.deepcopy(BASE)
    if place == ("optimizer", "lr_scheduler"):
        section["optimizer"] = {"type": "SGD"}
    if "slicers" in place:
        section["data"]["type"] = "numpy"
    if not place:
        return {**section, **content}
    held: Any = section
    for key, following in itertools.pairwise(place):
        held = held.setdefault(key, [{}] if following == 0 else {})
    held[place[-1]] = content
    return section


def _is_taken(section: dict[str, Any]) -> bool:
    try:
        parse(RunFile, section, ROOT)
    except Refused:
        return False
    return True


def _assert_published(section: dict[str, Any]) -> None:
    errors = validate({ROOT: section}, PREPARED, preprocess=False)
    assert not errors, (section, [error.message for error in errors])


@st.composite
def _spelt(draw: st.DrawFn, names: list[str]) -> str:
    name = draw(st.sampled_from(names))
    return "".join(draw(st.sampled_from([c.lower(), c.upper()])) for c in name)


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_what_the_validator_takes_the_server_takes(data: st.DataObject):
    place, model, content = data.draw(st.sampled_from(PLACES))
    keys = data.draw(st.lists(st.sampled_from(_keys(model)), min_size=1, max_size=2, unique=True))
    content = copy.deepcopy(content)
    for key in keys:
        content[key] = data.draw(st.sampled_from(VALUES) | _spelt(NAMES))
    section = _with(place, content)
    if _is_taken(section):
        _assert_published(section)


@pytest.mark.slow
def test_every_value_that_the_validator_takes_the_server_takes():
    taken = 0
    for place, model, content in PLACES:
        for key in _keys(model):
            for value in [*VALUES, *NAMES, *(name.swapcase() for name in NAMES), *LAYERS]:
                section = _with(place, {**copy.deepcopy(content), key: value})
                if _is_taken(section):
                    taken += 1
                    _assert_published(section)
    assert taken > 1000


@pytest.mark.parametrize("layers", LAYERS)
def test_layers_are_taken_in_each_form(layers: Any):
    _assert_published({**BASE, "layers": layers})


def test_what_is_taken_by_no_other_is_refused_by_the_server():
    for section in (
        {"data": {}},
        {**BASE, "optimiser": {}},
        {**BASE, "num_epochs": "3"},
        {**BASE, "precision": "half"},
    ):
        assert validate({ROOT: section}, PREPARED, preprocess=False)


@pytest.mark.parametrize(("place", "model", "content"), PLACES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_form_sends_switches_as_they_are_by_default(place: Any, model: type[BaseModel], content: dict[str, Any]):
    """The form sends each switch that it shows: that must not change what a run does, nor be refused."""
    switches = {
        name: about.default for name, about in model.model_fields.items() if about.annotation in (bool, bool | None)
    }
    section = _with(place, {**content, **switches})
    assert parse(RunFile, section, ROOT).model_dump() == parse(RunFile, _with(place, content), ROOT).model_dump()


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for member in part.values():
            yield from _parts(member)
    elif isinstance(part, list):
        for member in part:
            yield from _parts(member)


def test_the_form_sends_nothing_else_of_its_own():
    names = {name for family in (OPTIMIZERS, SCHEDULERS, LOSSES) for name in family}
    for part in _parts(FORM):
        if "default" in part and isinstance(part.get("title"), str):
            default = part["default"]
            assert default is None or isinstance(default, bool) or default in names, part


def test_every_key_of_the_form_has_its_name_and_a_description():
    section = FORM
    for holder in (section, section["properties"]["data"], section["properties"]["checkpoints"]["anyOf"][0]):
        for key, part in holder["properties"].items():
            assert part["title"] == key
            assert part["description"], key
    assert "Default: 64." in section["properties"]["data"]["properties"]["batch_size"]["description"]


def test_every_choice_of_the_form_has_a_name():
    optimizer = FORM["properties"]["optimizer"]
    assert [choice["title"] for choice in optimizer["anyOf"]] == [*OPTIMIZERS, "none"]
    assert optimizer["default"] is None
    for part in _parts(FORM):
        for choice in part.get("anyOf", ()) if isinstance(part.get("anyOf"), list) else ():
            assert choice.get("title"), part


def test_the_server_keeps_the_schema_of_each_flow_without_references():
    for flow in (rml, retrain):
        published = flow.parameters.model_dump_for_openapi()
        text = json.dumps(published["properties"])
        assert "$ref" not in text
        assert len(text) < 150_000
