import itertools

import keras
import numpy as np
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SHAPES = {1: (9,), 2: (9, 8), 3: (6, 5, 7)}
WINDOWS = list(itertools.product((1, 2, 3, 4), (None, 1, 2, 3), ("valid", "same")))


@pytest.mark.parametrize(("pool", "strides", "padding"), WINDOWS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pooling_is_that_of_keras(agree_layer, rank, pool, strides, padding):
    layer = getattr(keras.layers, f"MaxPooling{rank}D")(pool, strides=strides, padding=padding)
    agree_layer(layer, (*SHAPES[rank], 3))


@pytest.mark.parametrize(("pool", "strides"), list(itertools.product((1, 2, 3, 4), (None, 1, 2, 3))))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_average_pooling_is_that_of_keras(agree_layer, rank, pool, strides):
    agree_layer(getattr(keras.layers, f"AveragePooling{rank}D")(pool, strides=strides), (*SHAPES[rank], 3))


def averaged(x, pool, strides):
    """Means over the elements that each window of `same` really covers (TensorFlow's rule), axis by axis."""
    total, count = x, np.ones_like(x)
    for axis, (size, stride) in enumerate(zip(pool, strides, strict=True), start=1):
        length = x.shape[axis]
        number = -(-length // stride)
        before = max((number - 1) * stride + size - length, 0) // 2
        spans = [(max(i * stride - before, 0), min(i * stride - before + size, length)) for i in range(number)]

        def summed(values, axis=axis, spans=spans):
            return np.stack([values.take(range(*span), axis).sum(axis) for span in spans], axis)

        total, count = summed(total), summed(count)
    return total / count


@pytest.mark.parametrize(("pool", "strides"), list(itertools.product((1, 2, 3, 4), (1, 2, 3))))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_average_pooling_with_same_counts_what_is_there(rank, pool, strides):
    """Keras on torch repeats border elements here; TensorFlow, whose numbers users know, leaves the padding out."""
    config = {"pool_size": pool, "strides": strides, "padding": "same"}
    source = [{"class_name": f"AveragePooling{rank}D", "config": config}]
    x = np.random.default_rng(0).normal(size=(2, *SHAPES[rank], 3)).astype("float32")
    module = build(infer(read(source, "layers", None), (3, *SHAPES[rank])), 0)
    ours = module(torch.from_numpy(x).movedim(-1, 1)).movedim(1, -1).numpy()
    np.testing.assert_allclose(ours, averaged(x, (pool,) * rank, (strides,) * rank), atol=1e-6)


@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_explicit_padding_adds_zeros_on_each_side(kind):
    source = [{"class_name": f"{kind}Pooling2D", "config": {"pool_size": [2, 3], "strides": 2, "padding": [1, 0]}}]
    network = infer(read(source, "layers", None), (1, 4, 5))
    x = -torch.arange(1.0, 21).reshape(1, 1, 4, 5)
    padded = torch.zeros(1, 1, 6, 5)
    padded[:, :, 1:5] = x
    windows = padded.unfold(2, 2, 2).unfold(3, 3, 2).flatten(-2)
    expected = windows.amax(-1) if kind == "Max" else windows.mean(-1)
    assert network.output_shape == (1, 3, 2)
    torch.testing.assert_close(build(network, 0)(x), expected)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pooling_is_that_of_keras(agree_layer, rank, kind, keepdims):
    agree_layer(getattr(keras.layers, f"Global{kind}Pooling{rank}D")(keepdims=keepdims), (*SHAPES[rank], 3))


@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_same_pooling_depends_on_the_size_that_comes(kind):
    """The network is built for one size, and evaluated on slices of another."""
    source = [{"class_name": f"{kind}Pooling2D", "config": {"pool_size": 3, "strides": 2, "padding": "same"}}]
    for sizes in ((8, 8), (9, 7), (5, 6)):
        built_for_it = build(infer(read(source, "layers", None), (2, *sizes)), 0)
        built_for_another = build(infer(read(source, "layers", None), (2, 16, 16)), 0)
        x = torch.randn(1, 2, *sizes)
        assert torch.equal(built_for_it(x), built_for_another(x))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("pool", [(3, 3, 3), (2, 1, 4)])
def test_3d_means_that_do_not_stride_are_those_of_torch(pool, padding):
    """Larger samples are taken one after the other, and may share memory."""
    source = [{"class_name": "AveragePooling3D", "config": {"pool_size": pool, "strides": 1, "padding": padding}}]
    network = build(infer(read(source, "layers", None), (1, 40, 41, 42)), 0)
    box = torch.randn(1, 1, 40, 41, 62, dtype=torch.float64)
    x = torch.cat([box[..., :42], box[..., 20:]])
    views = box.as_strided(x.shape, (20, *box.stride()[1:]))
    padded = x
    counted = torch.ones_like(x)
    if padding == "same":
        around = [size for window in reversed(pool) for size in ((window - 1) // 2, window // 2)]
        padded, counted = torch.nn.functional.pad(x, around), torch.nn.functional.pad(counted, around)
    means = torch.nn.functional.avg_pool3d
    expected = means(padded, pool, 1) / means(counted, pool, 1)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), expected)
        torch.testing.assert_close(network(views), expected)
    torch.testing.assert_close(network(x), expected)


def test_3d_means_that_do_not_stride_have_gradients():
    for padding in ("same", "valid"):
        source = [{"class_name": "AveragePooling3D", "config": {"pool_size": 3, "strides": 1, "padding": padding}}]
        network = build(infer(read(source, "layers", None), (2, 4, 5, 3)), 0)
        x = torch.randn(2, 2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(network, x)
