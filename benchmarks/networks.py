"""The networks of the benchmarks, each twice: as a run file's `layers`, and as a hand-written torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

Layer = dict[str, Any]


def _layer(class_name: str, name: str, *inbound: str, **config: Any) -> Layer:
    nodes = [[[source, 0, 0, {}] for source in inbound]] if inbound else []
    return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def _convolution(name: str, source: str, filters: int, activation: str = "relu", size: int = 3) -> Layer:
    return _layer(
        "Conv2D", name, source, filters=filters, kernel_size=[size, size], padding="same", activation=activation
    )


def small_cnn_json(size: int, channels: int, classes: int) -> list[Layer]:
    """Two convolutions with pooling and two dense layers, for `size` x `size` images."""
    shape = [None, size, size, channels]
    return [
        _layer("InputLayer", "image", batch_input_shape=shape),
        _convolution("conv_1", "image", 16),
        _layer("MaxPooling2D", "pool_1", "conv_1", pool_size=[2, 2]),
        _convolution("conv_2", "pool_1", 32),
        _layer("MaxPooling2D", "pool_2", "conv_2", pool_size=[2, 2]),
        _layer("Flatten", "flatten", "pool_2"),
        _layer("Dense", "dense_1", "flatten", units=64, activation="relu"),
        _layer("Dense", "class", "dense_1", units=classes, activation="log_softmax"),
    ]


def small_cnn_torch(size: int, channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (size // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
        nn.LogSoftmax(dim=1),
    )


WIDTHS = (16, 32, 64)
BOTTOM = 128
REGIONS = 2


def unet_json(size: int) -> list[Layer]:
    """Ronneberger, Fischer, Brox (arXiv:1505.04597) with three levels, "same" padding and two classes a pixel."""
    layers = [_layer("InputLayer", "image", batch_input_shape=[None, size, size, 1])]
    source = "image"
    for level, width in enumerate(WIDTHS, start=1):
        layers += [
            _convolution(f"down_{level}a", source, width),
            _convolution(f"down_{level}b", f"down_{level}a", width),
            _layer("MaxPooling2D", f"pool_{level}", f"down_{level}b", pool_size=[2, 2]),
        ]
        source = f"pool_{level}"
    layers += [_convolution("bottom_a", source, BOTTOM), _convolution("bottom_b", "bottom_a", BOTTOM)]
    source = "bottom_b"
    for level, width in reversed(list(enumerate(WIDTHS, start=1))):
        layers += [
            _layer("Conv2DTranspose", f"grow_{level}", source, filters=width, kernel_size=[2, 2], strides=[2, 2]),
            _layer("Concatenate", f"join_{level}", f"down_{level}b", f"grow_{level}", axis=-1),
            _convolution(f"up_{level}a", f"join_{level}", width),
            _convolution(f"up_{level}b", f"up_{level}a", width),
        ]
        source = f"up_{level}b"
    return [*layers, _convolution("region", source, REGIONS, "log_softmax", size=1)]


def unet3d_json(size: int) -> list[Layer]:
    """Çiçek et al. (arXiv:1606.06650) with two levels and a bottom, "same" padding and two classes a voxel."""

    def convolution(name: str, source: str, filters: int, activation: str = "relu", size: int = 3) -> Layer:
        sizes = [size, size, size]
        return _layer("Conv3D", name, source, filters=filters, kernel_size=sizes, padding="same", activation=activation)

    layers, source = [_layer("InputLayer", "volume", batch_input_shape=[None, size, size, size, 1])], "volume"
    for level, width in enumerate((8, 16), start=1):
        layers += [
            convolution(f"down_{level}a", source, width),
            convolution(f"down_{level}b", f"down_{level}a", width),
            _layer("MaxPooling3D", f"pool_{level}", f"down_{level}b", pool_size=[2, 2, 2]),
        ]
        source = f"pool_{level}"
    layers += [convolution("bottom_a", source, 32), convolution("bottom_b", "bottom_a", 32)]
    source = "bottom_b"
    for level, width in ((2, 16), (1, 8)):
        layers += [
            _layer("Conv3DTranspose", f"grow_{level}", source, filters=width, kernel_size=[2, 2, 2], strides=[2, 2, 2]),
            _layer("Concatenate", f"join_{level}", f"down_{level}b", f"grow_{level}", axis=-1),
            convolution(f"up_{level}a", f"join_{level}", width),
            convolution(f"up_{level}b", f"up_{level}a", width),
        ]
        source = f"up_{level}b"
    return [*layers, convolution("region", source, REGIONS, "log_softmax", size=1)]


class UNet(nn.Module):
    """(N, 1, H, W) to log-probabilities (N, 2, H, W); H and W are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        before = (1, *WIDTHS)
        deeper = (*WIDTHS[1:], BOTTOM)
        self.down = nn.ModuleList(_pair(c, width) for c, width in zip(before, WIDTHS, strict=False))
        self.bottom = _pair(WIDTHS[-1], BOTTOM)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(c, width, 2, stride=2) for c, width in zip(deeper, WIDTHS, strict=True)
        )
        self.up = nn.ModuleList(_pair(2 * width, width) for width in WIDTHS)
        self.pool = nn.MaxPool2d(2)
        self.region = nn.Conv2d(WIDTHS[0], REGIONS, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.down:
            x = down(x)
            kept.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for level in reversed(range(len(WIDTHS))):
            x = self.up[level](torch.cat([kept[level], self.grow[level](x)], dim=1))
        return log_softmax(self.region(x), dim=1)


def _pair(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
    )
