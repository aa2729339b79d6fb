import itertools
import json
from pathlib import Path

import keras
import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = {1: (5,), 2: (4, 5), 3: (3, 4, 2)}


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (2, 3, 4, 5), (3, 4, 1), (1, 1, 5)])
def test_flatten_is_that_of_keras(agree_layer, shape):
    agree_layer([keras.layers.Flatten(), keras.layers.Dense(2)], shape)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((12,), (3, 4)),
        ((12,), (2, -1)),
        ((12,), (2, 3, 2)),
        ((4, 6), (24,)),
        ((4, 6), (-1,)),
        ((4, 6), (2, 2, 6)),
        ((4, 6, 3), (24, 3)),
        ((4, 6, 3), (-1, 9)),
        ((4, 6, 3), (2, 12, 3)),
        ((4, 6, 3), (2, 2, 6, -1)),
        ((2, 3, 4, 5), (6, 20)),
    ],
)
def test_reshape_is_that_of_keras(agree_layer, shape, target):
    agree_layer([keras.layers.Reshape(target), keras.layers.Dense(2)], shape)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_nearest_upsampling_is_that_of_keras(agree_layer, rank, size):
    agree_layer(getattr(keras.layers, f"UpSampling{rank}D")(size), (*SHAPES[rank], 3))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(2, 2), (2, 3), (1, 4), (3, 5)])
@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 7, 1)])
def test_upsampling_of_images(agree_layer, interpolation, size, shape):
    agree_layer(keras.layers.UpSampling2D(size, interpolation=interpolation), shape)


@pytest.mark.parametrize(
    ("rank", "padding"),
    [
        (1, 2),
        (1, (1, 3)),
        (2, 1),
        (2, (1, 2)),
        (2, ((0, 1), (2, 3))),
        (3, 2),
        (3, (1, 2, 0)),
        (3, ((0, 1), (2, 3), (1, 0))),
    ],
)
def test_zero_padding_is_that_of_keras(agree_layer, rank, padding):
    agree_layer(getattr(keras.layers, f"ZeroPadding{rank}D")(padding), (*SHAPES[rank], 3))


def test_flattening_channels_last_memory_copies_nothing():
    from rml_core.layers.modules.reshaping import flatten

    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert flatten(x).data_ptr() == x.data_ptr()
    assert torch.equal(flatten(x), x.permute(0, 2, 3, 1).reshape(2, -1))


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((5,), (1,)),
        ((4, 5), (2, 1)),
        ((4, 5), (1, 2)),
        *(((3, 4, 5), dims) for dims in itertools.permutations((1, 2, 3))),
        *(((3, 4, 2, 5), dims) for dims in itertools.permutations((1, 2, 3, 4))),
    ],
)
def test_permute_is_that_of_keras(agree_layer, shape, dims):
    agree_layer([keras.layers.Permute(dims), keras.layers.Dense(2)], shape)


@pytest.mark.parametrize(
    ("rank", "cropping"),
    [
        (1, 1),
        (1, (0, 3)),
        (2, 1),
        (2, (1, 2)),
        (2, ((0, 1), (2, 0))),
        (2, ((0, 0), (0, 0))),
        (3, 1),
        (3, (1, 0, 2)),
        (3, ((0, 1), (2, 1), (1, 0))),
    ],
)
def test_cropping_is_that_of_keras(agree_layer, rank, cropping):
    shape = {1: (5,), 2: (4, 5), 3: (3, 4, 5)}[rank]
    agree_layer([getattr(keras.layers, f"Cropping{rank}D")(cropping), keras.layers.ReLU()], (*shape, 3))


@pytest.mark.parametrize(
    ("class_name", "config", "shape", "message"),
    [
        (
            "Cropping2D",
            {"cropping": 2},
            (3, 4, 5),
            "nothing is left of its input (4, 5, 3): its output would be (0, 1, 3)",
        ),
        ("Permute", {"dims": [2, 1]}, (3, 4, 5), "orders 2 axes, and is given (4, 5, 3)"),
    ],
)
def test_what_does_not_fit(class_name, config, shape, message):
    with pytest.raises(Refused) as refused:
        infer(read([{"class_name": class_name, "name": "a", "config": config}], "layers", Path()), shape)
    assert str(refused.value) == f'layers[0]: layer "a" ({class_name}): {message}'


@pytest.mark.parametrize("dims", [[1, 1], [0, 1], [2, 3], 1, ["a"]])
def test_dims_are_an_order_of_the_axes(dims):
    with pytest.raises(Refused) as refused:
        read([{"class_name": "Permute", "config": {"dims": dims}}], "layers", Path())
    assert str(refused.value) == (
        f"layers[0].config.dims: {json.dumps(dims)} is not an order of the axes\n"
        "    allowed: each axis once, counted from 1: [2, 1] swaps two"
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos3", "lanczos5"])
def test_interpolation_leaves_what_is_constant_and_is_its_own_transpose(interpolation):
    """The weights of each new element add up to 1, and gradients are those of the same weights."""
    source = [{"class_name": "UpSampling2D", "config": {"size": [2, 3], "interpolation": interpolation}}]
    module = build(infer(read(source, "layers", Path()), (2, 4, 5)), 0)
    torch.testing.assert_close(module(torch.ones(1, 2, 4, 5)), torch.ones(1, 2, 8, 15))
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(module.double(), x)
