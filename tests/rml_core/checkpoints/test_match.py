import pytest
import torch
from torch import nn

from rml_core.checkpoints import match
from rml_core.checkpoints.stored import Held, Outline, Stored
from rml_core.checkpoints.torch_files import by_layer
from rml_core.config.problem import Refused


@pytest.fixture
def load_into(layers_of):
    def load(module, weights, outlines=()):
        stored = weights if isinstance(weights, Stored) else by_layer(weights)
        return match.load_into(module, stored, layers_of(module), outlines)

    return load


def ones(network, **changes):
    return {name: torch.ones_like(value) for name, value in network.state_dict().items()} | changes


def test_everything_fits(network, load_into):
    assert load_into(network, ones(network)) == ["Loaded 3 of the network's 3 layers with weights, skipped 0"]
    assert all(value.eq(1).all() for value in network.state_dict().values())


def test_what_does_not_fit_is_skipped_and_said(network, load_into):
    weights = ones(network)
    weights["dense/a.weight"] = torch.ones(8, 4)
    weights["dense_128_1.weight"] = weights["dense_128_1.bias"] = torch.ones(3)
    weights["conv.gamma"] = torch.ones(3)
    assert load_into(network, weights) == [
        "Skipping layer conv: weight gamma not found in model",
        "Skipping layer dense/a: shape (8, 4) does not fit (10, 4)",
        "Skipping layer dense_128_1: not found in model",
        "Loaded 1 of the network's 3 layers with weights, skipped 3; as they began: conv, dense/a",
    ]
    assert not network["dense/a"].bias.any()
    assert not network["conv"].weight.any()
    assert network["norm"].weight.all()


def test_a_weight_that_the_file_does_not_have_stays(network, load_into):
    weights = {"conv.weight": torch.ones(2, 1, 3, 3).double()}
    assert load_into(network, weights) == [
        "Layer conv: bias is not in the file, it stays as it was",
        "Loaded 1 of the network's 3 layers with weights, skipped 0; as they began: norm, dense/a",
    ]
    assert network["conv"].weight.dtype == torch.float32
    assert network["conv"].weight.all()
    assert not network["conv"].bias.any()


def test_a_count_of_batches_is_no_weight(network, load_into):
    network["norm"].register_buffer("num_batches_tracked", None)
    weights = {name: torch.ones_like(value) for name, value in network.state_dict().items()}
    weights["norm.num_batches_tracked"] = torch.tensor(7)
    assert load_into(network, weights) == ["Loaded 3 of the network's 3 layers with weights, skipped 0"]


def test_nothing_that_fits_is_refused(network, load_into):
    with pytest.raises(Refused) as refused:
        load_into(network, {"0.weight": torch.ones(1), "conv.weight": torch.ones(1)})
    assert str(refused.value) == (
        "neural_network.checkpoints.load: nothing in the file fits a layer of the network\n"
        "    allowed: weights of conv, norm, dense/a\n"
        "    the file has 0, conv: load another one; those of the same name differ\n"
        "    Skipping layer conv: shape (1,) does not fit (2, 1, 3, 3)"
    )


def test_a_refusal_does_not_list_hundreds_of_layers(network, load_into):
    with pytest.raises(Refused) as refused:
        load_into(network, {f"{index}.weight": torch.ones(1) for index in range(300)})
    assert str(refused.value) == (
        "neural_network.checkpoints.load: nothing in the file fits a layer of the network\n"
        "    allowed: weights of conv, norm, dense/a\n"
        "    the file has 0, 1, 2, 3 and 296 more: load another one, or give the layers its names"
    )


def test_frozen_layers_are_filled_too(network, load_into):
    network["conv"].requires_grad_(False)
    load_into(network, ones(network))
    assert network["conv"].weight.all()
    assert not network["conv"].weight.requires_grad


@pytest.mark.parametrize("wrapper", ["module.", "model.net.", "_orig_mod.module."])
def test_what_wraps_a_module_is_no_part_of_its_layers_names(network, load_into, wrapper):
    weights = {wrapper + name: value for name, value in ones(network).items()}
    assert load_into(network, weights) == ["Loaded 3 of the network's 3 layers with weights, skipped 0"]
    assert network["conv"].weight.all()


def test_layers_that_are_modules_inside_each_other_in_torch():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self._modules["tower/conv"] = nn.Conv1d(1, 2, 3)

    weights = {"tower.conv.weight": torch.ones(2, 1, 3), "tower.conv.bias": torch.ones(2)}
    module = Whole()
    layer = type("Layer", (), {"name": "tower/conv", "key": "tower/conv", "class_name": "Conv1D", "weights": ()})
    layer.weights = [type("Slot", (), {"attribute": name}) for name in ("weight", "bias")]
    outlines = [Outline("tower", "Functional", (Outline("conv", "Conv1D"),))]
    assert match.load_into(module, by_layer(weights), [layer], outlines) == [
        "Loaded 1 of the network's 1 layers with weights, skipped 0"
    ]
    assert module._modules["tower/conv"].weight.eq(1).all()


def test_a_name_that_two_layers_end_with_is_nobodys(load_into):
    module = nn.ModuleDict({"conv": nn.Conv1d(1, 1, 1), "last": nn.Linear(1, 1)})
    weights = {f"{name}.weight": torch.ones(1, 1, 1) for name in ("a.conv", "b.conv")}
    weights |= {"last.weight": torch.ones(1, 1), "last.bias": torch.ones(1)}
    assert load_into(module, weights) == [
        "Skipping layer a.conv: not found in model",
        "Skipping layer b.conv: not found in model",
        "Loaded 1 of the network's 2 layers with weights, skipped 2; as they began: conv",
    ]


# --- Keras's layout


def keras(version=2, flipped=False, **layers):
    """`a__b` stands for the name `a/b`."""
    named = ((name.replace("__", "/"), weights) for name, weights in layers.items())
    held = (Held(name, (name,), tuple(weights.items())) for name, weights in named)
    return Stored(tuple(held), version, flipped)


def test_kernels_of_keras_are_turned(network, load_into):
    kernel, matrix = torch.rand(3, 3, 1, 2), torch.rand(4, 10)
    stored = keras(
        conv={"conv/kernel:0": kernel, "conv/bias:0": torch.ones(2)},
        dense__a={"dense/a/kernel:0": matrix, "dense/a/bias:0": torch.ones(10)},
    )
    assert load_into(network, stored) == [
        "Loaded 2 of the network's 3 layers with weights, skipped 0; as they began: norm"
    ]
    assert torch.equal(network["conv"].weight, kernel.permute(3, 2, 0, 1))
    assert torch.equal(network["dense/a"].weight, matrix.T)


def test_weights_of_other_names_go_by_their_order(network, load_into):
    kernel = torch.rand(3, 3, 1, 2)
    load_into(network, keras(conv={"conv_1/conv_W_1:0": kernel, "conv_1/conv_b_1:0": torch.ones(2)}))
    assert torch.equal(network["conv"].weight, kernel.permute(3, 2, 0, 1))


def test_shapes_are_said_as_keras_has_them(network, load_into):
    stored = keras(
        conv={"conv/kernel:0": torch.ones(3, 3, 3, 2), "conv/bias:0": torch.ones(2)},
        norm={"norm/kernel:0": torch.ones(2), "norm/bias:0": torch.ones(2), "norm/renorm:0": torch.ones(2)},
        dense__a={"0": torch.ones(3)},
        other={"other/kernel:0": torch.ones(3)},
    )
    with pytest.raises(Refused) as refused:
        load_into(network, stored)
    assert refused.value.problems[0].remedy.splitlines() == [
        "the file has conv, norm, dense/a, other: load another one; those of the same name differ",
        "    Skipping layer conv: shape (3, 3, 3, 2) does not fit (3, 3, 1, 2)",
        "    Skipping layer norm: weight renorm not found in model",
        "    Skipping layer dense/a: 1 weights in the file do not fit 2 in model: kernel, bias",
    ]


def test_kernels_of_keras_1(load_into):
    module = nn.ModuleDict({"conv": nn.Conv1d(3, 2, 5)})
    kernel = torch.rand(5, 3, 2)
    for older in (kernel[:, None], kernel.permute(2, 1, 0)[..., None]):
        nn.init.zeros_(module["conv"].weight)
        load_into(module, keras(1, conv={"conv_W:0": older, "conv_b:0": torch.ones(2)}))
        assert torch.equal(module["conv"].weight, kernel.permute(2, 1, 0))


def test_kernels_that_were_trained_on_theano_are_mirrored(network, load_into):
    """Theano convolves, as scipy does; TensorFlow and torch correlate."""
    from scipy.signal import convolve2d

    kernel = torch.rand(3, 3, 1, 2)
    load_into(network, keras(2, True, conv={"conv/kernel:0": kernel, "conv/bias:0": torch.zeros(2)}))
    image = torch.rand(6, 6)
    ours = network["conv"](image[None, None])[0, 1]
    expected = convolve2d(image.numpy(), kernel[:, :, 0, 1].numpy(), mode="valid")
    torch.testing.assert_close(ours, torch.from_numpy(expected))
