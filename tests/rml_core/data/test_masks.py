"""Raw mask values and the classes they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.problem import RunFailed
from rml_core.config.target import IGNORED
from rml_core.data.masks import CLASS_TARGETS, check_known, mapping, to_classes
from rml_core.transforms.section import FILLED


@pytest.mark.parametrize(
    ("values", "classes", "ignored", "expected"),
    [
        ((0, 1, 2), 3, None, None),
        ((0, 2), 3, None, None),
        ((0, 255), 2, None, (0, 255)),
        ((1, 2, 3), 3, None, (1, 2, 3)),
        ((0, 1, 255), 2, 255, None),
        ((0, 1, 2), 2, 0, (1, 2)),
        ((10, 20, 255), 3, 255, (10, 20)),
        ((0,), 2, None, None),
    ],
)
def test_mapping(values, classes, ignored, expected):
    assert mapping(values, classes, ignored) == expected


def test_more_values_than_classes():
    with pytest.raises(RunFailed) as failed:
        mapping({0: "/a.png", 128: "/b.png", 255: "/c.png"}, 2)
    assert str(failed.value) == (
        "the masks have 3 distinct values (0, 128, 255), the network has 2 outputs; 255 is in /c.png; give it an "
        "output for each value, or mend the masks; if the values number objects, make them 0 and 1 first"
    )
    with pytest.raises(RunFailed) as failed:
        mapping({0: "/a.JPG", 128: "/b.png", 255: "/c.png"}, 1)
    assert str(failed.value) == (
        "the masks have 3 distinct values (0, 128, 255), the network has one output, which tells two classes apart; "
        "255 is in /c.png; give it an output for each value, or mend the masks (JPEG makes values of its own: use PNG)"
    )
    with pytest.raises(RunFailed) as failed:
        mapping({0: "/a.npz:/a", 1: "/a.npz:/b", 2: "/a.npz:/c", 3: "/a.npz:/d"}, 3, what=CLASS_TARGETS)
    assert str(failed.value) == (
        "the class targets have 4 distinct values (0, 1, 2, 3), the network has 3 outputs; 3 is in /a.npz:/d; give it "
        "an output for each value, or mend the class targets"
    )


def test_a_test_value_unseen_in_training():
    check_known({0: "/a.png", 255: "/a.png", 7: "/b.png"}, (0, 255), 2, ignore_index=7)
    with pytest.raises(RunFailed) as failed:
        check_known({0: "/a.png", 255: "/a.png", 7: "/b.png", 9: "/c.png"}, (0, 255), 2)
    assert str(failed.value) == (
        "/b.png: value 7 stands for no class: training masks have 0, 255; nor do 9; mend it, or train on masks "
        "that have this value"
    )
    with pytest.raises(RunFailed) as failed:
        check_known({0: "/a.png", 3: "/b.png"}, None, 3)
    assert str(failed.value) == (
        "/b.png: value 3 stands for no class: classes are 0 to 2; mend it, or train on masks that have this value"
    )
    with pytest.raises(RunFailed) as failed:
        check_known({0: "/a.npz:/a", 2: "/a.npz:/c"}, (0, 1), 2, what=CLASS_TARGETS)
    assert str(failed.value) == (
        "/a.npz:/c: value 2 stands for no class: training class targets have 0, 1; mend it, or train on class targets "
        "that have this value"
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=40),
    st.integers(0, 255) | st.none(),
    st.sampled_from(["uint8", "uint16", "int16", "int32"]),
)
def test_classes_are_positions_in_the_sorted_values(values, ignored, dtype):
    raw = np.array(values, dtype)
    distinct = sorted(set(values) - {ignored})
    mapped = mapping(distinct, max(len(distinct), 1), ignored)
    positions = {value: i for i, value in enumerate(distinct)} if mapped is not None else {v: v for v in distinct}
    expected = [IGNORED if value == ignored else positions[value] for value in values]
    classes = to_classes(raw, mapped, ignored)
    assert classes.dtype == np.int64
    assert classes.tolist() == expected


@pytest.mark.parametrize("mapped", [None, (0, 1, 5)])
@pytest.mark.parametrize("dtype", ["int16", "int32"])
def test_filled_pixels_carry_no_weight(mapped, dtype):
    assert to_classes(np.array([[1, FILLED]], dtype), mapped).tolist() == [[1, IGNORED]]


def test_negative_values_are_classes_too():
    assert to_classes(np.array([-7, 3, -7], np.int16), (-7, 3)).tolist() == [0, 1, 0]
