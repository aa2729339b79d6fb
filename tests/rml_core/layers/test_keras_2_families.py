"""The families of `keras.applications` against real Keras 2, which `tests/oracles/keras_2_families.py` ran."""

import json
import lzma
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

ORACLE = Path(__file__).parents[2] / "oracles" / "keras_2_families.json.xz"
FAMILIES = json.loads(lzma.decompress(ORACLE.read_bytes()))
QUICK = ("MobileNetV2", "MobileNetV3Small", "ConvNeXt", "VGG16")


def drawn(name, shape):
    """The oracle's numbers for this name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if "variance" in name:
        return torch.as_tensor(random.uniform(0.5, 1.5, size=shape))
    return torch.as_tensor(random.normal(size=shape) / max(1.0, np.prod(shape[:-1])) ** 0.5)


def counted(oracle):
    network = infer(read(oracle["model"], "layers", Path()), None)
    assert (network.parameters, network.trainable) == (oracle["parameters"], oracle["trainable"])
    assert (network.layers, list(network.output_shape_keras)) == (oracle["layers"], oracle["output_shape"])
    return network


@pytest.mark.parametrize("name", FAMILIES["full"])
def test_every_member_is_counted_as_keras_counts(name):
    counted(FAMILIES["full"][name])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES["small"]]
)
def test_the_numbers_of_a_smaller_one_are_those_of_keras_2(name):
    oracle = FAMILIES["small"][name]
    network = counted(oracle)
    module = build(network, 0).double()
    tensors = module.state_dict()
    places = {}
    for layer in network.unique:
        for number, weight in enumerate(layer.weights):
            place = f"{layer.key}.{weight.attribute}"
            places[place] = f"{layer.name}:{number}"
            if weight.name != "count":
                kind = "variance" if "variance" in weight.name else "weight"
                values = drawn(f"{name}:{layer.name}:{kind} {number}", weight.shape)
                tensors[place].copy_(values.permute(weight.axes) if weight.axes else values)
    x = drawn(f"{name}:input", (2, *network.input_shape[1:], network.input_shape[0])) * 10
    x = x.movedim(-1, 1).contiguous(memory_format=torch.channels_last)

    def close(ours, theirs):
        theirs = torch.tensor(theirs, dtype=torch.float64)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(theirs.abs().max())))

    close(module.eval()(x).detach(), oracle["evaluated"])
    trained = module.train()(x)
    close(trained.detach(), oracle["trained"])
    (trained * drawn(f"{name}:pull", trained.shape)).sum().backward()
    norms = {places[key]: parameter.grad.norm() for key, parameter in module.named_parameters()}
    assert norms.keys() == oracle["gradient_norms"].keys()
    close(torch.stack([norms[place] for place in oracle["gradient_norms"]]), list(oracle["gradient_norms"].values()))
