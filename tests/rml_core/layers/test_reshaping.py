import keras
import pytest
import torch

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
