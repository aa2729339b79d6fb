"""What the data section may say about slices."""

from __future__ import annotations

from typing import Any

import pytest

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.data import Data

WHERE = "neural_network.data"
CUT = {"input_type": "numpy", "test_input_path": "v.npy", "slicers": [{"sizes": [4, 4, 4]}]}
OUTFILE = {**CUT, "hdf5_outfile": "prediction.h5"}

MOVES = (
    "moves pixels, and hdf5_outfile puts predictions where their slices lie\n"
    "    leave out one of the two: assemble in a run of its own, which loads what this one saves"
)


def refusal(given: dict[str, Any]) -> str:
    with pytest.raises(Refused) as refused:
        parse(Data, given, WHERE)
    return str(refused.value)


def test_the_keys_of_assembly():
    data = parse(
        Data, {**OUTFILE, "hdf5_precision": "HALF", "hdf5_output": "ArgMax", "overlap_blend": "Gaussian"}, WHERE
    )
    assert (data.hdf5_precision, data.hdf5_output, data.overlap_blend) == ("half", "argmax", "gaussian")
    data = parse(Data, OUTFILE, WHERE)
    assert (data.hdf5_precision, data.hdf5_output, data.overlap_blend) == ("single", "values", "mean")


def test_transforms_that_leave_pixels_where_they_are_go_with_an_outfile():
    patches = {"random_patches": {"number": 2, "size": 2}}
    transforms = [{"convert_color": "BGR2RGB"}, patches, {"normalize": {"mean": 1}}]
    data = parse(Data, {**OUTFILE, "slicers": [{"sizes": [4, 4, 1]}], "transforms": transforms}, WHERE)
    assert len(data.transforms) == 3


def test_no_slicers_are_no_slices():
    assert parse(Data, {"input_type": "images", "input_path": "in", "slicers": []}, WHERE).slicers == ()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {**CUT, "input_type": "images"},
            f'{WHERE}.input_type: slicers do not cut "images"\n'
            "    allowed: numpy, hdf5, zarr\n    or leave out slicers",
        ),
        (
            {**CUT, "input_type": "mnist", "target_type": "Labels"},
            f'{WHERE}.target_type: the samples of mnist lie in no folders of classes\n    allowed: "target_type": '
            f'"mnist"\n{WHERE}.input_type: slicers do not cut "mnist"\n    allowed: numpy, hdf5, zarr\n    or leave '
            f'out slicers\n{WHERE}.target_type: slicers do not cut "Labels"\n    allowed: numpy, hdf5, zarr\n    or '
            "leave out slicers",
        ),
        (
            {"type": "hdf5", "input_path": "v.h5", "validation_split": 0.1, "slicers": [{"sizes": [4]}]},
            f"{WHERE}.validation_split: does not go with slicers: neighbouring slices of one volume are nearly alike\n"
            "    give a volume of its own to evaluate on, with test_input_path",
        ),
        (
            {**CUT, "slicers": [{"name": "a", "sizes": [4, 4]}, {"name": "a", "sizes": [5, 5]}]},
            f'{WHERE}.slicers[1].name: "a" is what slicers[0] is called\n    allowed: another name',
        ),
        (
            {**CUT, "slicers": [{"name": "slice_set_2", "sizes": [4, 4]}, {"sizes": [5, 5]}]},
            f'{WHERE}.slicers[0].name: "slice_set_2" is what slicers[1] is called\n    allowed: another name',
        ),
        (
            {**CUT, "slicers": [{"sizes": [4, 4, 1]}, {"sizes": [1, 4, 1]}, {"sizes": [4, 4]}]},
            f"{WHERE}.slicers[1].sizes: [1, 4, 1] makes 1D samples, and slicers[0] 2D ones\n"
            "    allowed: samples of one rank: one network takes all of them\n"
            f"{WHERE}.slicers[2].sizes: [4, 4] has 2 sizes, and slicers[0] has 3: they cut one array\n"
            "    allowed: as many sizes in every set",
        ),
        (
            {"input_type": "numpy", "input_path": "in", "hdf5_outfile": "p.h5"},
            f"{WHERE}.hdf5_outfile: there are no slicers, and it is slices that are assembled\n"
            "    give slicers; or test_output_path, which takes any predictions\n"
            f"{WHERE}.hdf5_outfile: there is no test_input_path that it could belong to\n"
            "    give one, or leave out hdf5_outfile",
        ),
        (
            {**CUT, "hdf5_precision": "half", "hdf5_output": "values", "overlap_blend": "mean"},
            "\n".join(
                f"{WHERE}.{key}: there is no hdf5_outfile that it could belong to\n    give one, or leave out {key}"
                for key in ("hdf5_precision", "hdf5_output", "overlap_blend")
            ),
        ),
        (
            {**OUTFILE, "hdf5_precision": "double", "hdf5_output": "class", "overlap_blend": "max"},
            f'{WHERE}.hdf5_precision: unknown precision "double"\n    allowed: single, half\n'
            f'{WHERE}.hdf5_output: unknown output "class"\n    allowed: values, argmax\n'
            f'{WHERE}.overlap_blend: unknown blend "max"\n    allowed: mean, gaussian',
        ),
        (
            {**OUTFILE, "hdf5_outfile": "https://host/p.h5"},
            f'{WHERE}.hdf5_outfile: "https://host/p.h5": nothing can be written to a web server\n'
            "    allowed: a path of this machine, or a URL that takes files, as s3://bucket/name",
        ),
        *(
            (
                {**OUTFILE, "transforms": [{"normalize": {}}, {name.upper(): value}]},
                f"{WHERE}.transforms[1].{name}: {MOVES}",
            )
            for name, value in (
                ("resize", [4, 4]),
                ("center_crop", [2, 2]),
                ("jitter_crop", 0.1),
                ("random_horizontal_flip", 0.5),
                ("random_vertical_flip", 0.5),
                ("random_zoom", 0.1),
                ("rotate", 90),
                ("random_rotate", 10),
            )
        ),
        (
            {**OUTFILE, "type": "numpy", "input_type": None, "input_transforms": [{"rotate": 3}]}
            | {"test_target_path": "m.npy", "target_transforms": [{"resize": [2, 2]}]},
            f"{WHERE}.input_transforms[0].rotate: {MOVES}\n{WHERE}.target_transforms[0].resize: {MOVES}",
        ),
    ],
)
def test_what_is_refused(given: dict[str, Any], text: str):
    assert refusal(given) == text


def test_every_problem_at_once():
    text = refusal(
        {
            "input_type": "images",
            "slicers": [{"sizes": [4, 4], "strides": [1]}, {"name": "slice_set_1", "sizes": [4], "transpose": True}, 3],
            "hdf5_outfile": "p.h5",
            "transforms": [{"resize": [3, 3]}, {"nothing": 1}],
            "overlap_blend": "least",
        }
    )
    assert [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")] == [
        f"{WHERE}.transforms[1]",
        f"{WHERE}.slicers[0].strides",
        f"{WHERE}.slicers[1].transpose",
        f"{WHERE}.slicers[2]",
        f"{WHERE}.overlap_blend",
        f"{WHERE}.input_path",
        f"{WHERE}.input_type",
        f"{WHERE}.slicers[1].name",
        f"{WHERE}.slicers[1].sizes",
        f"{WHERE}.hdf5_outfile",
        f"{WHERE}.transforms[0].resize",
    ]
