"""A benchmark's two networks are the same network: Keras makes the one, torch the other, of the same weights."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture
def networks() -> Any:
    return importlib.import_module("networks")


def built_by_keras(layers: list[dict[str, Any]]) -> Any:
    import keras

    tensors: dict[str, Any] = {}
    for layer in layers:
        config = dict(layer["config"])
        if layer["class_name"] == "InputLayer":
            tensors[layer["name"]] = keras.Input(batch_shape=config["batch_input_shape"])
            continue
        inbound = [tensors[source] for source, *_ in layer["inbound_nodes"][0]]
        made = getattr(keras.layers, layer["class_name"]).from_config(config)
        tensors[layer["name"]] = made(inbound if len(inbound) > 1 else inbound[0])
    return keras.Model(next(iter(tensors.values())), list(tensors.values())[-1])


def as_keras_keeps(weight: torch.Tensor, channels: int | None) -> np.ndarray[Any, Any]:
    """A kernel with its axes in Keras's order; a dense one behind Flatten counts its inputs channels last."""
    kernel = weight.detach().numpy()
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if kernel.ndim == 2 and channels:
        side = round((kernel.shape[1] / channels) ** 0.5)
        kernel = kernel.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(kernel.shape)
    return kernel.T if kernel.ndim == 2 else kernel


@pytest.mark.parametrize("kind", ["small CNN", "U-Net"])
def test_both_give_the_same_numbers(networks: Any, kind: str) -> None:
    torch.manual_seed(0)
    if kind == "U-Net":
        ours, theirs, size, channels = networks.unet_json(16), networks.UNet(), 16, 1
    else:
        ours, theirs, size, channels = networks.small_cnn_json(12, 3, 5), networks.small_cnn_torch(12, 3, 5), 12, 3
    model = built_by_keras(ours)
    assert model.count_params() == sum(p.numel() for p in theirs.parameters())

    if kind == "U-Net":
        modules = in_order(theirs)
    else:
        modules = [module for module in theirs if list(module.parameters(recurse=False))]
    first_dense = next((module for module in modules if isinstance(module, torch.nn.Linear)), None)
    weights = []
    for module in modules:
        weights += [as_keras_keeps(module.weight, 32 if module is first_dense else None), module.bias.detach().numpy()]
    model.set_weights(weights)

    x = torch.rand(2, channels, size, size)
    with torch.no_grad():
        expected = theirs(x)
        given = model(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def in_order(unet: Any) -> list[torch.nn.Module]:
    """The U-Net's layers as the run file lists them: from the left down to the bottom and up again."""
    stages = [*unet.down, unet.bottom]
    for level in reversed(range(len(unet.grow))):
        stages += [unet.grow[level], unet.up[level]]
    stages.append(unet.region)
    return [m for stage in stages for m in stage.modules() if list(m.parameters(recurse=False))]
