import pytest
import torch
from torch import nn

from rml_core.checkpoints.match import load_into
from rml_core.config.problem import Refused


@pytest.fixture
def network():
    module = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2), "dense/a": nn.Linear(4, 10)})
    for parameter in module.state_dict().values():
        parameter.zero_()
    return module


def ones(network, **changes):
    return {name: torch.ones_like(value) for name, value in network.state_dict().items()} | changes


def test_everything_fits(network):
    assert load_into(network, ones(network)) == ["Loaded 3 of the network's 3 layers with weights, skipped 0"]
    assert all(value.eq(1).all() for value in network.state_dict().values())


def test_what_does_not_fit_is_skipped_and_said(network):
    weights = ones(network)
    weights["dense/a.weight"] = torch.ones(8, 4)
    weights["dense_128_1.weight"] = weights["dense_128_1.bias"] = torch.ones(3)
    weights["conv.gamma"] = torch.ones(3)
    assert load_into(network, weights) == [
        "Skipping layer conv: weight gamma not found in model",
        "Skipping layer dense/a: shape (8, 4) does not fit (10, 4)",
        "Skipping layer dense_128_1: not found in model",
        "Loaded 1 of the network's 3 layers with weights, skipped 3",
    ]
    assert not network["dense/a"].bias.any()
    assert not network["conv"].weight.any()
    assert network["norm"].weight.all()


def test_a_weight_that_the_file_does_not_have_stays(network):
    weights = {"conv.weight": torch.ones(2, 1, 3, 3).double()}
    assert load_into(network, weights) == [
        "Layer conv: bias is not in the file, it stays as it was",
        "Loaded 1 of the network's 3 layers with weights, skipped 0",
    ]
    assert network["conv"].weight.dtype == torch.float32
    assert network["conv"].weight.all()
    assert not network["conv"].bias.any()


def test_a_count_of_batches_is_no_weight(network):
    network["norm"].register_buffer("num_batches_tracked", None)
    weights = {name: torch.ones_like(value) for name, value in network.state_dict().items()}
    weights["norm.num_batches_tracked"] = torch.tensor(7)
    assert load_into(network, weights) == ["Loaded 3 of the network's 3 layers with weights, skipped 0"]


def test_nothing_that_fits_is_refused(network):
    with pytest.raises(Refused) as refused:
        load_into(network, {"0.weight": torch.ones(1), "conv.weight": torch.ones(1)})
    assert str(refused.value) == (
        "neural_network.checkpoints.load: no layer of the network has weights in the file\n"
        "    Skipping layer 0: not found in model\n"
        "    Skipping layer conv: shape (1,) does not fit (2, 1, 3, 3)"
    )


def test_frozen_layers_are_filled_too(network):
    network["conv"].requires_grad_(False)
    load_into(network, ones(network))
    assert network["conv"].weight.all()
    assert not network["conv"].weight.requires_grad
