"""Problems of a section: where, what was given, what is allowed, what to do."""

from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, Field

from rml_core.config.names import Keyed, OneOf, Tagged
from rml_core.config.problem import Problem, Refused
from rml_core.config.section import Floats, FromList, Section, keys_of, parse


class Plain(Section):
    type: Annotated[str, OneOf("optimizer", "SGD")]
    learning_rate: float = Field(0.01, gt=0)


class Adaptive(Section):
    type: Annotated[str, OneOf("optimizer", "Adam")]
    betas: Floats = (0.9, 0.999)


class Resize(Section):
    resize: Annotated[tuple[int, int], FromList]


class Flip(Section):
    flip: float = Field(ge=0, le=1)


class Whole(Section):
    optimizer: Annotated[Section, Tagged("optimizer", "type", {"SGD": Plain, "Adam": Adaptive}, ["LARS"])]
    transforms: list[Annotated[Section, Keyed("transform", {"resize": Resize, "flip": Flip}, ["zoom"])]] = Field([])
    epochs: int = Field(1, ge=1)
    tag: str | None = Field(None, validation_alias=AliasChoices("tag", "label"))


def problems(value: object) -> str:
    with pytest.raises(Refused) as refused:
        parse(Whole, value, "root")
    return str(refused.value)


def test_names_are_taken_in_any_case_and_kept_in_one():
    whole = parse(Whole, {"optimizer": {"type": "aDaM"}, "transforms": [{"RESIZE": [3, 4]}], "label": "x"}, "root")
    assert whole.optimizer.type == "Adam"
    assert whole.transforms[0].resize == (3, 4)
    assert whole.tag == "x"


def test_every_problem_is_said_at_once():
    text = problems(
        {
            "optimizer": {"type": "adam", "beta": [1], "betas": ["x", 1]},
            "transforms": [
                {"resize": [1, 2.5]},
                {"resise": 1},
                3,
                {},
                {"zoom": 1},
                {"flip": 2},
                {"resize": 4},
                {"resize": [1, 2, 3]},
            ],
            "epochs": True,
            "epoch": 3,
            "tag": 1,
        }
    )
    assert text == "\n".join(
        [
            'root.optimizer.betas[0]: "x" does not fit',
            "    allowed: a number",
            "root.optimizer.beta: unknown key",
            "    allowed: type, betas",
            '    did you mean "betas"?',
            "root.transforms[0].resize[1]: 2.5 does not fit",
            "    allowed: an integer",
            'root.transforms[1]: unknown transform "resise"',
            "    allowed: resize, flip",
            '    did you mean "resize"?',
            "root.transforms[2]: 3 is not an object",
            "    allowed: an object with one key, the transform: resize, flip",
            "root.transforms[3]: {} has 0 keys",
            "    allowed: an object with one key, the transform: resize, flip",
            'root.transforms[4]: transform "zoom" is not available yet',
            "    allowed: resize, flip",
            "root.transforms[5].flip: 2 does not fit",
            "    allowed: less than or equal to 1",
            "root.transforms[6].resize: 4 does not fit",
            "    allowed: a list",
            "root.transforms[7].resize: [1, 2, 3] does not fit",
            "    allowed: at most 2 items, not 3",
            "root.epochs: true does not fit",
            "    allowed: an integer",
            "root.tag: 1 does not fit",
            "    allowed: a string",
            "root.epoch: unknown key",
            "    allowed: optimizer, transforms, epochs, tag, label",
            '    did you mean "epochs"?',
        ]
    )


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        ({}, "root.optimizer.type: is missing\n    allowed: SGD, Adam"),
        (
            {"type": "adamm"},
            'root.optimizer.type: unknown optimizer "adamm"\n    allowed: SGD, Adam\n    did you mean "Adam"?',
        ),
        ({"type": "lars"}, 'root.optimizer.type: optimizer "LARS" is not available yet\n    allowed: SGD, Adam'),
        ({"type": 3}, "root.optimizer.type: 3 is not the name of an optimizer\n    allowed: SGD, Adam"),
        (3, 'root.optimizer: 3 is not an object\n    allowed: an object with "type": SGD, Adam'),
        (None, 'root.optimizer: null is not an object\n    allowed: an object with "type": SGD, Adam'),
    ],
)
def test_a_table_says_what_stands_in_it(optimizer: object, text: str):
    assert problems({"optimizer": optimizer}) == text


def test_what_is_missing_and_what_is_no_object():
    assert problems({}) == "root.optimizer: is missing"
    assert problems([]) == "root: [] does not fit\n    allowed: an object"


def test_keys_with_their_aliases():
    assert keys_of(Whole) == ["optimizer", "transforms", "epochs", "tag", "label"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["optimizer", "transforms", "epochs", "type", "Adam", "resize", "<Adam>", "x"]), inner
            )
        ),
        max_leaves=8,
    )
)
@settings(deadline=None, max_examples=200)
def test_nonsense_is_refused_with_paths_below_the_root(value: Any):
    found: tuple[Problem, ...] = ()
    try:
        parse(Whole, value, "root")
    except Refused as refused:
        found = refused.problems
    assert all(problem.where.startswith("root") for problem in found)


def any_case(name: str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.sampled_from([c.lower(), c.upper()]) for c in name)).map("".join)


@given(any_case("adam"), any_case("resize"))
@settings(deadline=None, max_examples=50)
def test_the_schema_is_no_stricter_than_the_models(optimizer: str, transform: str):
    value = {"optimizer": {"type": optimizer}, "transforms": [{transform: [3, 4]}]}
    parse(Whole, value, "root")
    jsonschema.validate(value, Whole.model_json_schema())


def test_keys_that_are_not_needed_here():
    assert problems({"optimizer": {"type": "Adam"}, "metrics": ["accuracy"]}) == (
        "root.metrics: unknown key\n    allowed: optimizer, transforms, epochs, tag, label\n"
        "    accuracy and more are logged by themselves: leave it out"
    )
