"""Against real Keras 2 (TensorFlow 2.15): its JSON and its numbers, which `tests/oracles/keras_2.py` wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

ORACLES = Path(__file__).parents[2] / "oracles"
NETWORKS = json.loads((ORACLES / "keras_2.json").read_text())
ARRAYS = dict(np.load(ORACLES / "keras_2.npz"))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_are_those_of_keras_2(name):
    network = infer(read(NETWORKS[name]["model"], "layers", Path()), None)
    assert (network.parameters, network.trainable) == (NETWORKS[name]["parameters"], NETWORKS[name]["trainable"])
    module = build(network, 0)
    tensors = module.state_dict()
    for layer in network.unique:
        for weight in layer.weights:
            values = torch.from_numpy(ARRAYS[f"{name}:weight:{layer.name}:{weight.name}"])
            tensors[f"{layer.name}.{weight.attribute}"].copy_(values.permute(weight.axes) if weight.axes else values)

    def run():
        y = module(torch.from_numpy(ARRAYS[f"{name}:input"]).movedim(-1, 1))
        return y.movedim(1, -1).detach().numpy()

    module.eval()
    np.testing.assert_allclose(run(), ARRAYS[f"{name}:evaluated"], atol=1e-5)
    module.train()
    for step in (1, 2):
        np.testing.assert_allclose(run(), ARRAYS[f"{name}:trained {step}"], atol=1e-5)
    moved = [key.split(":")[2:] for key in ARRAYS if key.startswith(f"{name}:moved:")]
    assert moved
    for layer, statistic in moved:
        ours = tensors[f"{layer}.{'running_mean' if statistic == 'moving_mean' else 'running_var'}"]
        np.testing.assert_allclose(ours.numpy(), ARRAYS[f"{name}:moved:{layer}:{statistic}"], atol=1e-5)
