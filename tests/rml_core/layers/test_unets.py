"""U-Nets (Ronneberger, Fischer, Brox, arXiv:1505.04597) in 2D and 3D: every up-sampling, skip connection and merge."""

import keras
import pytest
import torch
from keras import layers as L

UPS = {
    "nearest": lambda rank, filters: layer("UpSampling", rank)(),
    "bilinear": lambda rank, filters: L.UpSampling2D(interpolation="bilinear"),
    "transposed 3": lambda rank, filters: layer("Conv", rank, "Transpose")(filters, 3, strides=2, padding="same"),
    "transposed 2": lambda rank, filters: layer("Conv", rank, "Transpose")(filters, 2, strides=2, activation="relu"),
    "transposed 4": lambda rank, filters: layer("Conv", rank, "Transpose")(filters, 4, strides=2, padding="same"),
}


def plain(x, y, rank):
    return x


def projected(x, y, rank):
    return L.PReLU(shared_axes=list(range(1, rank + 1)))(layer("Conv", rank)(x.shape[-1], 1)(x))


def gated(x, y, rank):
    """Attention (Oktay et al., arXiv:1804.03999): the skip is weighed by what comes from below."""
    together = L.ReLU()(L.Add()([layer("Conv", rank)(2, 1)(x), layer("Conv", rank)(2, 1)(y)]))
    return L.Multiply()([x, layer("Conv", rank)(1, 1, activation="sigmoid")(together)])


def squeezed(x, y, rank):
    """Squeeze and excitation (Hu et al., arXiv:1709.01507)."""
    weights = L.Dense(x.shape[-1], activation="sigmoid")(layer("GlobalAveragePooling", rank)(keepdims=True)(x))
    return L.Multiply()([x, weights])


SKIPS = (plain, projected, gated, squeezed)
MERGES = ("Concatenate", "Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract")
NORMS = {
    "batch": lambda: L.BatchNormalization(),
    "group": lambda: L.GroupNormalization(2),
    "layer": lambda: L.LayerNormalization(),
}


def layer(head, rank, tail=""):
    return getattr(L, f"{head}{rank}D{tail}")


def unet(rank, up="nearest", skip=plain, merge="Concatenate", norm="batch", padding="same", depth=2):
    def block(x, filters):
        for _ in range(2 if padding == "same" else 1):
            x = layer("Conv", rank)(filters, 3, padding=padding, use_bias=False)(x)
            x = L.Activation("swish")(NORMS[norm]()(x))
        return x

    size = {"same": 8, "valid": 22}[padding]
    x = inputs = keras.Input((size,) * rank + (2,))
    skips = []
    for _ in range(depth):
        x = block(x, 4)
        skips.append(x)
        x = layer("MaxPooling", rank)()(x)
    x = block(x, 4)
    for level in reversed(range(depth)):
        x = UPS[up](rank, 4)(x)
        beside = skips[level]
        if beside.shape[1] > x.shape[1]:
            extra = beside.shape[1] - x.shape[1]
            beside = layer("Cropping", rank)(((extra // 2, extra - extra // 2),) * rank)(beside)
        x = block(getattr(L, merge)()([skip(beside, x, rank), x]), 4)
    return keras.Model(inputs, layer("Conv", rank)(3, 1, activation="softmax")(x))


CASES = [
    *({"rank": rank, "up": up} for rank in (2, 3) for up in UPS if (rank, up) != (3, "bilinear")),
    *({"rank": 2, "merge": merge} for merge in MERGES[1:]),
    *({"rank": 3, "merge": merge, "depth": 1} for merge in ("Add", "Maximum")),
    *({"rank": rank, "skip": skip, "depth": 3 - rank + 1} for rank in (2, 3) for skip in SKIPS[1:]),
    *({"rank": rank, "norm": norm, "depth": 1} for rank in (2, 3) for norm in ("group", "layer")),
    *({"rank": rank, "padding": "valid", "up": "transposed 2", "depth": 4 - rank} for rank in (2, 3)),
]


def said(given):
    return ", ".join(getattr(value, "__name__", str(value)) for value in given.values())


@pytest.mark.parametrize("given", CASES, ids=said)
def test_unets_are_those_of_keras(agree, double_precision, given):
    memory_format = torch.channels_last if given["rank"] == 2 else torch.channels_last_3d
    agree(unet(**given), memory_format=memory_format)
