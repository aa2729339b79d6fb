"""What a slice set may say, and the grid that it makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.slicers.section import SliceSection, named

WHERE = "neural_network.data.slicers[0]"
KEYS = "name, sizes, padding, padded_sizes, strides, discard_remainders, transpose, padding_mode"


def section(**keys: Any) -> SliceSection:
    return parse(SliceSection, keys, WHERE)


def refusal(keys: dict[str, Any]) -> str:
    with pytest.raises(Refused) as refused:
        section(**keys)
    return str(refused.value)


def test_the_defaults():
    grid = section(sizes=[4, 1, 5]).grid((9, 3, 10), "set")
    assert [(axis.size, axis.stride, axis.before, axis.after) for axis in grid.axes] == [
        (4, 4, 0, 0),
        (1, 1, 0, 0),
        (5, 5, 0, 0),
    ]
    assert (grid.counts, grid.transpose, grid.padding_mode) == ((3, 3, 2), False, "zeros")


def test_the_manuals_example():
    """Slices in two orientations of an array of 540 x 131 x 1001."""
    yz = section(name="yz-slices", sizes=[1, 131, 1001], padded_sizes=[1, 144, 1008], discard_remainders=False)
    xz = section(name="xz-slices", sizes=[540, 1, 1001], padded_sizes=[560, 1, 1008], transpose=True)
    one, other = (each.grid((540, 131, 1001), each.name or "") for each in (yz, xz))
    assert (one.name, one.counts, one.sample_shape, one.kept_axes) == ("yz-slices", (540, 1, 1), (144, 1008), (1, 2))
    assert (other.name, other.counts, other.sample_shape) == ("xz-slices", (1, 131, 1), (1008, 560))
    assert other.kept_axes == (2, 0)
    assert [(axis.before, axis.after) for axis in one.axes] == [(0, 0), (6, 7), (3, 4)]
    assert [(axis.before, axis.after) for axis in other.axes] == [(10, 10), (0, 0), (3, 4)]


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3), padding=st.integers(0, 9), data=st.data())
@settings(max_examples=100, deadline=None)
def test_padding_in_its_three_ways(sizes: list[int], padding: int, data: st.DataObject):
    lengths = tuple(data.draw(st.integers(1, 30)) for _ in sizes)
    flat = [size == 1 for size in sizes]
    each = [0 if one else padding for one in flat]
    extra = [0 if one else data.draw(st.integers(0, 9)) for one in flat]
    array = np.zeros(sizes)
    for keys, pads in (
        ({"padding": padding}, [(pad, pad) for pad in each]),
        ({"padding": each}, [(pad, pad) for pad in each]),
        (
            {"padded_sizes": [size + more for size, more in zip(sizes, extra, strict=True)]},
            [(more // 2, more - more // 2) for more in extra],
        ),
    ):
        grid = section(sizes=sizes, **keys).grid(lengths, "set")
        assert [(axis.before, axis.after) for axis in grid.axes] == pads
        padded = np.pad(array, pads).shape
        assert grid.sample_shape == tuple(size for size, one in zip(padded, flat, strict=True) if not one)
        assert all(before in (after, after - 1) for before, after in pads)


def test_names_of_sets():
    sets = (section(sizes=[2]), section(sizes=[3], name="lines"), section(sizes=[4]))
    assert named(sets) == ("slice_set_1", "lines", "slice_set_3")


def test_padding_modes_in_any_case():
    assert section(sizes=[2], padding_mode="Context").padding_mode == "context"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"name": "a"}, f"{WHERE}.sizes: is missing"),
        ({"sizes": []}, f"{WHERE}.sizes: [] does not fit\n    allowed: at least 1 item, not 0"),
        ({"sizes": [4, 0]}, f"{WHERE}.sizes[1]: 0 does not fit\n    allowed: greater than or equal to 1"),
        ({"sizes": 4}, f"{WHERE}.sizes: 4 does not fit\n    allowed: a list"),
        (
            {"sizes": [4, 4], "stride": [2, 2]},
            f'{WHERE}.stride: unknown key\n    allowed: {KEYS}\n    did you mean "strides"?',
        ),
        (
            {"sizes": [4, 4], "padding_mode": "mirror"},
            f'{WHERE}.padding_mode: unknown padding mode "mirror"\n    allowed: zeros, edge, reflect, context',
        ),
        *(
            (
                {"sizes": [4, 4], "padding": padding},
                f"{WHERE}.padding: {shown} does not fit\n"
                "    allowed: an integer ≥ 0, or a list with one for each of the sizes",
            )
            for padding, shown in (("4", '"4"'), (-4, "-4"), (1.5, "1.5"), (True, "true"), (None, "null"))
        ),
        (
            {"sizes": [4, 4], "padding": [1, -4]},
            f"{WHERE}.padding[1]: -4 does not fit\n    allowed: greater than or equal to 0",
        ),
        (
            {"sizes": [4, 4], "padding": 1, "padded_sizes": [6, 6]},
            f"{WHERE}.padded_sizes: stands beside padding, and both say what is added\n    leave out one of the two",
        ),
        (
            {"sizes": [4, 4, 1], "padded_sizes": [4, 3, 5]},
            f"{WHERE}.padded_sizes[1]: 3 is less than the size, 4\n"
            "    allowed: at least 4\n"
            f"{WHERE}.padded_sizes[2]: 5 pads an axis of size 1, which is dropped from the samples\n"
            "    allowed: 1",
        ),
        (
            {"sizes": [4, 1], "padding": [1, 2]},
            f"{WHERE}.padding[1]: 2 pads an axis of size 1, which is dropped from the samples\n    allowed: 0",
        ),
        (
            {"sizes": [4, 4], "padding": [1], "strides": [2, 2, 2]},
            f"{WHERE}.padding: [1] does not go with 2 sizes\n    allowed: a number for each of the sizes\n"
            f"{WHERE}.strides: [2, 2, 2] does not go with 2 sizes\n    allowed: a number for each of the sizes",
        ),
        (
            {"sizes": [4, 4], "padded_sizes": [4, 4, 4]},
            f"{WHERE}.padded_sizes: [4, 4, 4] does not go with 2 sizes\n    allowed: a number for each of the sizes",
        ),
        (
            {"sizes": [4, 4, 4], "transpose": True},
            f"{WHERE}.transpose: is for 2D samples, and the sizes [4, 4, 4] make 3D ones\n    leave out transpose",
        ),
        (
            {"sizes": [4, 1, 1], "transpose": True},
            f"{WHERE}.transpose: is for 2D samples, and the sizes [4, 1, 1] make 1D ones\n    leave out transpose",
        ),
        (
            {"sizes": [4, 4, 4, 4]},
            f"{WHERE}.sizes: [4, 4, 4, 4] makes samples of 4 axes\n"
            "    allowed: samples of at most 3: those of size 1 are dropped",
        ),
        *(
            (
                {"sizes": [4], "name": name},
                f"{WHERE}.name: {shown} cannot be the name of an HDF5 dataset\n"
                '    allowed: a name without "/", and not "." alone',
            )
            for name, shown in (("", '""'), (".", '"."'), ("a/b", '"a/b"'), ("a\0", '"a\\u0000"'))
        ),
    ],
)
def test_what_is_refused(given: dict[str, Any], text: str):
    assert refusal(given) == text


def test_every_problem_at_once():
    text = refusal(
        {"name": "/", "sizes": [4, 1], "strides": [0, 1, 1], "transpose": True, "padding": 1, "padded_sizes": [2, 1]}
    )
    assert [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")] == [
        f"{WHERE}.name",
        f"{WHERE}.strides[0]",
        f"{WHERE}.padded_sizes",
        f"{WHERE}.transpose",
        f"{WHERE}.padded_sizes[0]",
        f"{WHERE}.strides",
    ]
