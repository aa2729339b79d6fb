"""Arrays that lie there as other programs have them, each with the whole text of what is said."""

from __future__ import annotations

import numpy as np
import pytest

from rml_core.config.problem import Refused

WHERE = "neural_network.data.input_path"


def pictures(shape):
    """A network of pictures, of any size, in one channel."""
    return (10,) if len(shape) == 3 and shape[0] == 1 else None


def refusal(work, takes=pictures, **keys):
    with pytest.raises(Refused) as refused:
        work.survey(takes=takes, **keys)
    return str(refused.value)


@pytest.mark.parametrize(
    ("kind", "name", "type_", "write"),
    [
        ("npz", "a.npz", "numpy", 'np.savez("x.npz", *x)'),
        ("hdf5", "a.h5", "hdf5", 'file[f"x/{i}"] = x[i]'),
        ("zarr3", "a.zarr", "zarr", 'group[f"x/{i}"] = x[i]'),
    ],
)
def test_all_samples_in_one_array_with_the_targets_beside_it(work, kind, name, type_, write):
    work.save(kind, name, {"x": np.zeros((20, 1, 8, 8)), "y": np.zeros(20, int)})
    text = (
        f"{WHERE}: an array is one sample, and {work.folder}/{name}:/x of shape (20, 1, 8, 8) looks like 20 of them\n"
        f"    write each by itself, and its target too: {write}"
    )
    for inputs, targets in ((name, name), (f"{name}:/x", f"{name}:/y")):
        for mask in (False, True):
            keys = {"input_path": inputs, "target_path": targets, "target_is_mask": mask}
            assert refusal(work, type=type_, **keys) == text


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((20, 8, 8), "an array is one sample, and {} of shape (20, 8, 8) looks like 20 of them\n"
                     '    write each by itself, and its target too: np.savez("x.npz", *x)'),
        ((20, 8, 9, 1), "an array is one sample, and {} of shape (20, 8, 9, 1) looks like 20 of them, channels last\n"
                        "    write each by itself, and its target too: x = np.moveaxis(x, -1, 1); "
                        'np.savez("x.npz", *x)'),
        ((8, 9, 1), "arrays are channels first, and {} of shape (8, 9, 1) looks channels last\n"
                    "    put the channels first: np.moveaxis(x, -1, 0)"),
        ((8, 8, 3), "arrays are channels first, and {} of shape (8, 8, 3) looks channels last\n"
                    "    put the channels first: np.moveaxis(x, -1, 0)"),
    ],
)  # fmt: skip
def test_one_array_of_another_layout(work, shape, text):
    np.save(work.folder / "a.npy", np.zeros(shape, np.float32))
    expected = f"{WHERE}: {text.format(f'{work.folder}/a.npy')}"
    assert refusal(work, input_type="numpy", input_path="a.npy") == expected


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 2), (5,), (4, 1, 8, 8)])
def test_what_fits_in_no_layout_is_left_to_the_network(work, shape):
    """Three channels instead of one are not three samples."""
    np.save(work.folder / "a.npy", np.zeros(shape, np.float32))
    assert work.survey(takes=pictures, input_type="numpy", input_path="a.npy").count == 1


def test_what_the_network_takes_has_the_right_layout(work):
    work.save("npz", "a.npz", {"a": np.zeros((20, 8, 8)), "b": np.zeros((20, 8, 8))})
    found = work.survey(takes=lambda shape: shape if len(shape) == 3 else None, input_type="numpy", input_path="a.npz")
    assert found.sample_shape == (20, 8, 8)


def test_samples_that_transforms_make_fit_have_the_right_layout(work):
    np.save(work.folder / "a.npy", np.zeros((20, 8, 8), np.float32))
    keys = {"input_type": "numpy", "input_path": "a.npy", "transforms": [{"resize": [4, 4]}]}
    assert work.survey(takes=lambda shape: shape if shape == (20, 4, 4) else None, **keys).sample_shape == (20, 4, 4)


def test_single_numbers_beside_samples(work):
    work.save("hdf5", "a.h5", {"x/a": np.zeros((1, 8, 8)), "y/a": np.zeros(())})
    assert refusal(work, input_type="hdf5", input_path="a.h5") == (
        f"{WHERE}: shapes differ: {work.folder}/a.h5:/x/a is (1, 8, 8), {work.folder}/a.h5:/y/a is ()\n"
        "    allowed: samples of one rank, channels first"
    )
