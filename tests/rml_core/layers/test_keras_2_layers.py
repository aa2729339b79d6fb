"""Every layer against real Keras 2 (TensorFlow 2.15), which `tests/oracles/keras_2_layers.py` ran."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

ORACLES = Path(__file__).parents[2] / "oracles"
NETWORKS = json.loads(gzip.decompress((ORACLES / "keras_2_layers.json.gz").read_bytes()))


def unpacked():
    numbers = np.load(ORACLES / "keras_2_layers.npz")["numbers"]
    for name, network in NETWORKS.items():
        found = {}
        for key, shape in network["arrays"].items():
            size = int(np.prod(shape))
            found[key], numbers = numbers[:size].reshape(shape), numbers[size:]
        yield name, found
    assert not numbers.size


ARRAYS = dict(unpacked())


def drawn(name, shape):
    """The oracle's numbers for this name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if "variance" in name:
        return np.float32(random.uniform(0.5, 1.5, size=shape))
    return np.float32(random.normal(size=shape) / max(1.0, np.prod(shape[:-1])) ** 0.5)


def made(name, source):
    """The network, its module with the oracle's weights, and its input."""
    network = infer(read(source, "layers", Path()), None)
    module = build(network, 0)
    tensors = module.state_dict()
    for layer in network.unique:
        for number, weight in enumerate(layer.weights):
            if weight.name != "count":
                kind = "variance" if "variance" in weight.name else "weight"
                values = torch.as_tensor(drawn(f"{name}:{layer.name}:{kind} {number}", weight.shape))
                values = values.permute(weight.axes) if weight.axes else values
                tensors[f"{layer.key}.{weight.attribute}"].copy_(values)
    shape = (2, *network.input_shape[1:], network.input_shape[0])
    return network, module, torch.from_numpy(drawn(f"{name}:input", shape) * 2).movedim(-1, 1)


def compare(ours, theirs, what):
    ours = ours.detach()
    ours = (ours.movedim(1, -1) if ours.dim() > 1 else ours).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, np.abs(theirs).max()), err_msg=what)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_are_those_of_keras_2(name):
    oracle, arrays = NETWORKS[name], ARRAYS[name]
    network, module, x = made(name, oracle["model"])
    assert network.graph.keras_version == 2
    assert (network.parameters, network.trainable) == (oracle["parameters"], oracle["trainable"])
    assert list(network.output_shape_keras) == oracle["output_shape"]
    compare(module.eval()(x), arrays["evaluated"], "evaluated")
    module.train()
    steps = [key for key in arrays if key.startswith("trained")]
    for step in range(1, len(steps) + 1):
        compare(module(x), arrays[f"trained {step}"], f"trained {step}")
        for key, values in arrays.items():
            if key.startswith(f"moved {step}"):
                _, place, number = key.split(":")
                layer = next(layer for layer in network.unique if layer.name == place)
                ours = module.get_submodule(layer.key).get_buffer(layer.weights[int(number)].attribute)
                compare(ours, values, key)
