"""Lists of transforms: what is stored, what is drawn, and where bytes become floats."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from rml_core.config.seed import generator
from rml_core.transforms import TRANSFORMS
from rml_core.transforms.chain import Chain, as_float
from rml_core.transforms.section import FILLED, DoesNotFit


def transforms(*pairs):
    return tuple(TRANSFORMS[name].model_validate({name: value}) for name, value in pairs)


def bytes_of(height, width, channels=3):
    return (generator(0, "b").random((height, width, channels)) * 255).astype(np.uint8)


def test_bytes_and_16_bits_become_floats_between_0_and_1_and_floats_stay():
    for dtype, white in (("uint8", 255), ("uint16", 65535)):
        array = np.array([0, 1, white // 2, white], dtype)
        assert as_float(array).dtype == np.float32
        np.testing.assert_array_equal(as_float(array), (array / white).astype(np.float32))
    for dtype in ("float32", "int32", "float64"):
        np.testing.assert_array_equal(as_float(np.array([-3, 700], dtype)), np.float32([-3, 700]))


def test_bytes_stay_bytes_until_the_first_normalize():
    array = bytes_of(8, 6)
    chain = Chain.of(transforms(("resize", [3, 4]), ("normalize", {"mean": 0.5}), ("resize", [6, 8])), (), "", False)
    assert chain.leading == 1
    stored = chain.lead(array)
    assert stored.dtype == np.uint8
    finished = chain.finish(stored, None, {}, training=False)
    small = as_float(transforms(("resize", [3, 4]))[0].apply(array)) - np.float32(0.5)
    np.testing.assert_array_equal(finished, transforms(("resize", [6, 8]))[0].apply(small))


def test_only_what_precedes_the_first_random_transform_is_stored():
    chain = Chain.of(transforms(("resize", [3, 4]), ("random_vertical_flip", 0.5), ("resize", [6, 8])), (), "", False)
    assert chain.leading == 1
    assert [type(step.transform).__name__ for step in chain.remaining(training=False)] == ["Resize"]


def test_a_masks_chain_leaves_values_alone():
    both = transforms(("convert_color", "BGR2RGB"), ("normalize", {"mean": 0.5}), ("resize", [3, 4]))
    chain = Chain.of(both, transforms(("rotate", 10.0)), "target_transforms", True)
    assert [step.path for step in chain.steps] == ["transforms[2]", "target_transforms[0]"]
    assert chain.leading == 2


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.booleans())
def test_shared_transforms_draw_once_for_input_and_target(index, mask):
    shared = transforms(("random_horizontal_flip", 0.5), ("normalize", {}), ("random_vertical_flip", 0.5))
    inputs = Chain.of(shared, (), "input_transforms", False)
    targets = Chain.of(shared, transforms(("random_vertical_flip", 1.0)), "target_transforms", mask)
    array, rng, draws = bytes_of(5, 4, 1), generator(0, "transform", 1, index), {}
    one = inputs.finish(array, rng, draws, training=True)
    other = targets.finish(array, rng, draws, training=True)
    np.testing.assert_array_equal(as_float(other)[::-1], one)


def test_evaluation_draws_nothing():
    chain = Chain.of(transforms(("random_horizontal_flip", 1.0)), (), "", False)
    array = bytes_of(5, 4)
    np.testing.assert_array_equal(chain.finish(array, None, {}, training=False), array)


def test_what_does_not_fit_says_where_it_stands():
    chain = Chain.of(transforms(("resize", [3, 4])), transforms(("center_crop", [9, 9])), "input_transforms", False)
    with pytest.raises(DoesNotFit) as error:
        chain.shape((20, 20, 3))
    assert error.value.path == "input_transforms[0].center_crop"


EVERY_RANDOM = (
    ("random_horizontal_flip", 0.5),
    ("random_zoom", 0.4),
    ("random_rotate", 40.0),
    ("random_vertical_flip", 0.5),
    ("jitter_crop", 0.5),
)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_a_mask_follows_its_picture_through_every_random_transform(index):
    """A picture of two halves and the mask of one of them stay in register, but for what is blurred along the edges."""
    halves = np.zeros((40, 40, 1), np.uint8)
    halves[:, 20:] = 200
    shared = transforms(*EVERY_RANDOM, ("resize", [32, 32]))
    chains = [Chain.of(shared, (), "", mask) for mask in (False, True)]
    rng, draws = generator(0, "transform", 1, index), {}
    picture, mask = (chain.finish(halves, rng, draws, training=True)[:, :, 0] for chain in chains)
    assert picture.shape == mask.shape == (32, 32)
    assert set(np.unique(mask)) <= {FILLED, 0, 200}
    # Zoomed twice, what is between two pixels is between five.
    kernel, border = np.ones((9, 9)), {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    deep, far = (cv2.erode(side.astype(np.uint8), kernel, **border).astype(bool) for side in (mask == 200, mask != 200))
    assert (picture[deep] >= 150).all()
    assert (picture[far] <= 50).all()


def test_what_one_side_has_alone_it_draws_by_itself():
    own = transforms(("random_rotate", 90.0))
    inputs, targets = (Chain.of((), own, key, False) for key in ("input_transforms", "target_transforms"))
    array, rng, draws = bytes_of(9, 9, 1), generator(0, "transform", 1, 3), {}
    one, other = (chain.finish(array, rng, draws, training=True) for chain in (inputs, targets))
    assert set(draws) == {"input_transforms[0]", "target_transforms[0]"}
    assert not np.array_equal(one, other)


def test_only_patches_are_random_in_evaluation():
    both = transforms(*EVERY_RANDOM, ("random_patches", {"number": 2, "size": 3}), ("normalize", {}))
    chain = Chain.of(both, (), "", False)
    assert [step.path for step in chain.remaining(training=False)] == ["transforms[5]", "transforms[6]"]
    assert [step.path for step in chain.acting(training=False).steps] == ["transforms[5]", "transforms[6]"]
    array, draws = np.full((9, 8, 3), 255, np.uint8), {}
    rng = generator(0, "transform", "evaluation", 1)
    inputs = chain.finish(array, rng, draws, training=False)
    assert list(draws) == [5]
    np.testing.assert_array_equal(inputs, both[5].apply(array, draws[5]))
    targets = Chain.of(both, (), "", False, targets=True).finish(array, rng, draws, training=False)
    np.testing.assert_array_equal(inputs + targets, array)


def test_the_sizes_of_a_jitter_crop_are_unknown_until_they_are_made_equal():
    def chain(*pairs):
        return Chain.of(transforms(*pairs), (), "", False)

    jitter = chain(("resize", [20, 10]), ("jitter_crop", 0.5), ("random_vertical_flip", 0.5))
    assert jitter.shape((None, None, 3)) == (None, None, 3)
    assert jitter.unequal((None, None, 3)).key == "transforms[1].jitter_crop"
    assert jitter.acting(training=False).shape((None, None, 3)) == (10, 20, 3)
    assert jitter.acting(training=False).unequal((None, None, 3)) is None
    # Of 20 pixels 0.09 cuts round(0.9) at most, of 10 round(0.45).
    assert chain(("jitter_crop", 0.09)).shape((10, 20, 3)) == (10, None, 3)
    assert chain(("jitter_crop", 0.04)).unequal((10, 20, 3)) is None
    for equal in (("resize", [7, 6]), ("center_crop", [7, 6])):
        mended = chain(("jitter_crop", 0.2), equal)
        assert mended.shape((10, 20, 3)) == (6, 7, 3)
        assert mended.unequal((10, 20, 3)) is None
    again = chain(("jitter_crop", 0.5), ("resize", [9, 9]), ("jitter_crop", 0.5))
    assert again.unequal((30, 30, 3)).key == "transforms[2].jitter_crop"


def test_what_needs_a_size_needs_that_of_the_smallest_crop():
    chain = Chain.of(transforms(("jitter_crop", 0.5), ("center_crop", [12, 12])), (), "", False)
    with pytest.raises(DoesNotFit) as error:
        chain.shape((20, 20, 3))
    assert str(error.value) == "12 x 12 is larger than a sample of 10 x 10 (width x height)"
    assert error.value.path == "transforms[1].center_crop"


def test_a_size_that_only_the_files_tell_is_asked_for():
    def asks(*pairs):
        return Chain.of(transforms(*pairs), (), "", False).asks_sizes((None, None, 3))

    patches = ("random_patches", {"number": 1, "size": 3})
    assert asks(patches, ("resize", [5, 5]))
    assert asks(("center_crop", [3, 3]), ("resize", [5, 5]))
    assert not asks(("resize", [5, 5]), patches, ("center_crop", [3, 3]))
    assert not asks(("jitter_crop", 0.1), ("resize", [5, 5]))


@pytest.mark.parametrize("shape", [(9, 2), (4, 5, 6, 1)])
def test_samples_of_other_ranks_take_normalize_alone(shape):
    chain = Chain.of(transforms(("normalize", {"mean": 3})), (), "", False, scale=False)
    assert chain.shape(shape) == shape
    array = generator(0, "a").integers(0, 9, shape).astype(np.int16)
    led = chain.lead(array)
    finished = chain.ending(training=True).apply(chain.finish(led, None, {}, training=True))
    np.testing.assert_array_equal(finished, array.astype(np.float32) - 3)
    for pair in (("resize", [3, 4]), ("random_horizontal_flip", 0.5), ("convert_color", "BGR2RGB")):
        with pytest.raises(DoesNotFit) as error:
            Chain.of((), transforms(("normalize", {}), pair), "input_transforms", False).shape(shape)
        assert str(error.value) == f"acts on 2D samples, and these are {len(shape) - 1}D"
        assert error.value.remedy == "leave it out: only `normalize` goes with such samples"
        assert error.value.path == f"input_transforms[1].{pair[0]}"


def bilinear(array, width, height):
    """Each channel of float64 by itself, pixel centres aligned, the border repeated."""
    rows = np.clip((np.arange(height) + 0.5) * array.shape[0] / height - 0.5, 0, array.shape[0] - 1)
    columns = np.clip((np.arange(width) + 0.5) * array.shape[1] / width - 0.5, 0, array.shape[1] - 1)
    places = np.meshgrid(rows, columns, indexing="ij")
    planes = [map_coordinates(plane, places, order=1) for plane in np.moveaxis(array.astype(np.float64), 2, 0)]
    return np.stack(planes, axis=2)


ARRAYS = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 140])
@pytest.mark.parametrize("dtype", ARRAYS)
def test_arrays_of_any_type_and_any_number_of_channels_are_bilinear(dtype, channels):
    """Nothing is rounded to the array's type, nothing is scaled."""
    largest = 2 if dtype == "bool" else 100 if dtype == "int8" else 200 if dtype == "uint8" else 30_000
    array = generator(0, dtype, channels).integers(0, largest, (9, 11, channels)).astype(dtype)
    chain = Chain.of(transforms(("random_horizontal_flip", 1.0), ("resize", [7, 13])), (), "", False, scale=False)
    result = chain.ending(True).apply(chain.finish(array, generator(0), {}, training=True))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, bilinear(array[:, ::-1], 7, 13), rtol=2e-4, atol=1e-3)
    square = array[:9, :9]
    turned = Chain.of(transforms(("rotate", 90.0)), (), "", False, scale=False).lead(square)
    np.testing.assert_allclose(turned, np.rot90(square, -1).astype(np.float32), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("dtype", ["int32", "int16", "float64", "float32"])
def test_pictures_of_other_types_are_never_rounded_either(dtype):
    array = generator(0, dtype).integers(0, 30_000, (9, 11, 3)).astype(dtype)
    chain = Chain.of(transforms(("resize", [7, 13])), (), "", False)
    np.testing.assert_allclose(chain.lead(array), bilinear(array, 7, 13), rtol=2e-4)


def test_a_list_may_change_the_number_of_channels_before_it_turns():
    flip, gray, turn = listed = transforms(
        ("random_vertical_flip", 1.0), ("convert_color", "BGR2GRAY"), ("random_rotate", 40.0)
    )
    array = bytes_of(9, 8)
    finished = Chain.of(listed, (), "", False).finish(array, generator(0, 1), {}, training=True)
    rng = generator(0, 1)
    upside_down = flip.apply(array, flip.draw(rng, array.shape))
    np.testing.assert_array_equal(finished, turn.apply(gray.apply(upside_down), turn.draw(rng, (9, 8, 1))))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_list_gives_the_bits_of_its_transforms_one_after_the_other(dtype, channels):
    listed = transforms(
        ("random_horizontal_flip", 0.5),
        ("random_rotate", 40.0),
        ("center_crop", [11, 12]),
        ("random_zoom", 0.4),
        ("random_vertical_flip", 0.5),
        ("jitter_crop", 0.5),
        ("resize", [9, 10]),
        ("random_patches", {"number": 2, "size": 3}),
        ("random_rotate", 40.0),
        ("normalize", {"mean": 0.1}),
        ("rotate", 5.0),
    )
    chain = Chain.of(listed, (), "", False)
    for index in range(8):
        array = generator(0, "a", index).integers(0, 200, (15, 14, channels)).astype(dtype)
        finished = chain.finish(array, generator(0, index), {}, training=True)
        rng, expected = generator(0, index), array
        for transform in listed:
            if dtype == "int32" and transform.interpolates:
                expected = expected.astype(np.float32)
            if isinstance(transform, TRANSFORMS["normalize"]):
                expected = as_float(expected)
            expected = transform.apply(expected, transform.draw(rng, expected.shape))
        np.testing.assert_array_equal(finished, expected)
