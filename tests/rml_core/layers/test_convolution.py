import itertools

import keras
import pytest

CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}
TRANSPOSED = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose, 3: keras.layers.Conv3DTranspose}
SHAPES = {1: (9,), 2: (9, 8), 3: (6, 5, 7)}


def options(rank, kernels=(1, 2, 3, 4), strides=(1, 2, 3), dilations=(1, 2), paddings=("valid", "same")):
    for kernel, stride, dilation, padding in itertools.product(kernels, strides, dilations, paddings):
        reach = (kernel - 1) * dilation + 1
        if (stride == 1 or dilation == 1) and (padding == "same" or reach <= min(SHAPES[rank])):
            yield {"kernel_size": kernel, "strides": stride, "dilation_rate": dilation, "padding": padding}


def each(ranks=(1, 2, 3), **grid):
    return [
        pytest.param(rank, one, id=f"{rank}d-{'-'.join(map(str, one.values()))}")
        for rank in ranks
        for one in options(rank, **grid)
    ]


@pytest.mark.parametrize(("rank", "given"), each())
def test_convolutions_are_those_of_keras(agree_layer, rank, given):
    agree_layer(CONVOLUTIONS[rank](4, **given), (*SHAPES[rank], 3))


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_groups(agree_layer, rank, padding, groups):
    layer = CONVOLUTIONS[rank](8, 3, strides=2, padding=padding, groups=groups, use_bias=False)
    agree_layer(layer, (*SHAPES[rank], 4))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("filters", [1, 6])
def test_channel_counts(agree_layer, channels, filters):
    agree_layer(
        keras.layers.Conv2D(filters, (3, 2), strides=(2, 1), padding="same", activation="relu"), (7, 6, channels)
    )


def transposed(rank, **grid):
    for given in options(rank, **grid):
        extras = (None, 0, given["strides"] - 1) if given["strides"] > 1 else (None,)
        for extra in dict.fromkeys(extras):
            yield {**given, "output_padding": extra}


def each_transposed(ranks=(1, 2, 3), **grid):
    return [
        pytest.param(rank, one, id=f"{rank}d-{'-'.join(map(str, one.values()))}")
        for rank in ranks
        for one in transposed(rank, **grid)
    ]


@pytest.mark.parametrize(("rank", "given"), each_transposed())
def test_transposed_convolutions_are_those_of_keras(agree_layer, rank, given):
    shape = (4, 3, 5)[:rank]
    agree_layer(TRANSPOSED[rank](2, activation="relu", **given), (*shape, 3))


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_causal_convolution_is_that_of_keras(agree_layer, kernel, dilation, strides):
    if strides > 1:
        dilation = 1
    layer = keras.layers.Conv1D(4, kernel, strides=strides, dilation_rate=dilation, padding="causal")
    agree_layer([layer, keras.layers.ReLU()], (9, 3))
