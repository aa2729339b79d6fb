"""What a data section may say."""

from __future__ import annotations

import pickle

import pytest

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.data import Data

WHERE = "neural_network.data"
GOOD = {"input_type": "images", "input_path": "in"}


def refusal(given):
    with pytest.raises(Refused) as refused:
        parse(Data, given, WHERE)
    return str(refused.value)


def test_defaults():
    data = parse(Data, GOOD, WHERE)
    assert (data.batch_size, data.test_batch_size, data.preload, data.shuffle) == (64, 64, False, True)
    assert data.targets is None
    assert not data.input_gray


def test_names_in_any_case_and_aliases():
    data = parse(
        Data, {"input_type": "Images", "target_type": "LABELS", "test_input_path": "t", "testing_tag": "x"}, WHERE
    )
    assert (data.input_type, data.target_type, data.test_tag) == ("images", "labels", "x")


def test_a_section_travels_to_workers():
    data = parse(Data, {**GOOD, "transforms": [{"resize": [3, 4]}, {"normalize": {"mean": [1, 2, 3]}}]}, WHERE)
    assert pickle.loads(pickle.dumps(data)) == data


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"input_path": "in"},
            f"{WHERE}.input_type: is missing\n"
            "    allowed: images, mnist, numpy, hdf5, zarr\n"
            '    or give "type" where inputs and targets are of one type',
        ),
        (
            {"type": "images", "target_type": "labels", "input_path": "in"},
            f'{WHERE}.target_type: stands beside "type", which means both\n    leave out "target_type" or "type"',
        ),
        (
            {"input_type": "labels", "input_path": "in"},
            f'{WHERE}.input_type: "labels" can be targets only\n    allowed: images, mnist, numpy, hdf5, zarr',
        ),
        (
            {"input_type": "images"},
            f"{WHERE}.input_path: is missing\n"
            "    give input_path to train, test_input_path to evaluate or infer, or both",
        ),
        (
            {**GOOD, "target_path": "masks"},
            f"{WHERE}.target_path: there is no target_type\n"
            "    allowed: images, labels, mnist, numpy, hdf5, zarr\n"
            "    give one, or leave out target_path",
        ),
        (
            {**GOOD, "target_type": "labels", "target_is_mask": True},
            f"{WHERE}.target_is_mask: does not go with labels, which are the names of the inputs' folders\n"
            "    leave out target_is_mask",
        ),
        (
            {**GOOD, "target_type": "images", "training_tag": "train"},
            f"{WHERE}.training_tag: is for labels only\n    leave out training_tag",
        ),
        (
            {**GOOD, "test_output_path": "out"},
            f"{WHERE}.test_output_path: there is no test_input_path that it could belong to\n"
            "    give one, or leave out test_output_path",
        ),
        (
            {"type": "images", "test_input_path": "in", "target_path": "masks"},
            f"{WHERE}.target_path: there is no input_path that it could belong to\n    give one, or leave it out",
        ),
        (
            {"input_type": "pde", "input_path": "in"},
            f'{WHERE}.input_type: data type "pde" is not available yet\n'
            "    allowed: images, labels, mnist, numpy, hdf5, zarr",
        ),
        (
            {**GOOD, "input_path": "nowhere://bucket/in"},
            f'{WHERE}.input_path: "nowhere://bucket/in": nowhere:// is not known\n'
            "    allowed: a path of this machine, or a URL, as s3://bucket/name or https://host/name",
        ),
        (
            {**GOOD, "test_input_path": "t", "validation_split": 0.2},
            f"{WHERE}.validation_split: stands beside test_input_path: there are test samples already\n"
            "    leave out validation_split, or test_input_path",
        ),
        (
            {"input_type": "images", "test_input_path": "t", "target_type": "labels", "validation_split": 0.2},
            f"{WHERE}.validation_split: stands beside test_input_path: there are test samples already\n"
            "    leave out validation_split, or test_input_path",
        ),
        ({**GOOD, "validation_split": 1.0}, f"{WHERE}.validation_split: 1.0 does not fit\n    allowed: less than 1"),
        ({**GOOD, "validation_split": 0.0}, f"{WHERE}.validation_split: 0.0 does not fit\n    allowed: greater than 0"),
        (
            {"input_type": "mnist", "target_type": "labels", "input_path": "in"},
            f"{WHERE}.target_type: the samples of mnist lie in no folders of classes\n"
            '    allowed: "target_type": "mnist"',
        ),
        (
            {"type": "numpy", "input_path": "in", "target_path": "t", "grayscale": True, "target_grayscale": True},
            f"{WHERE}.grayscale: is for images only\n    leave out grayscale\n"
            f"{WHERE}.target_grayscale: is for images only\n    leave out target_grayscale",
        ),
        ({**GOOD, "batch_size": 0}, f"{WHERE}.batch_size: 0 does not fit\n    allowed: greater than or equal to 1"),
        (3, f"{WHERE}: 3 does not fit\n    allowed: an object"),
    ],
)
def test_what_is_refused(given, text):
    assert refusal(given) == text


@pytest.mark.parametrize("key", ["bc_type", "num_examples"])
def test_keys_that_are_not_there_yet(key):
    assert refusal({**GOOD, key: "x"}).startswith(f"{WHERE}.{key}: is not available yet\n    allowed: input_type, ")


def test_every_problem_at_once():
    text = refusal({"batch_size": "x", "slicer": [], "transforms": [{"resise": 1}], "test_target_path": "t"})
    assert [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")] == [
        f"{WHERE}.batch_size",
        f"{WHERE}.transforms[0]",
        f"{WHERE}.slicer",
        f"{WHERE}.input_type",
        f"{WHERE}.input_path",
        f"{WHERE}.test_target_path",
        f"{WHERE}.test_target_path",
    ]


def test_the_schema_offers_the_alias():
    assert "testing_tag" in Data.model_json_schema()["properties"]
