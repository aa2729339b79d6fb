import copy
import pickle
from pathlib import Path

import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read


def layer(class_name, name, inbound=None, **config):
    item = {"class_name": class_name, "name": name, "config": config}
    return item if inbound is None else item | {"inbound_nodes": [[[source, 0, 0] for source in inbound]]}


def made(source, shape, seed=0):
    return build(infer(read(source, "layers", Path()), shape), seed)


RESIDUAL = [
    layer("Conv2D", "stem", filters=4, kernel_size=3, padding="same", activation="relu"),
    layer("BatchNormalization", "norm.1"),
    layer("Activation", "training", activation="relu"),
    layer("Conv2D", "a/b", filters=4, kernel_size=3, padding="same"),
    layer("Add", "sum", ["a/b", "stem"]),
    layer("LeakyReLU", "leaky"),
    layer("UpSampling2D", "up", interpolation="bilinear"),
    layer("Concatenate", "join", ["up", "up"]),
    layer("MaxPooling2D", "pool", padding="same", pool_size=3),
    layer("ZeroPadding2D", "zeros"),
    layer("Conv2D", "last", filters=2, kernel_size=2, strides=2, padding="same"),
]


def test_the_keys_of_the_state():
    assert list(made(RESIDUAL, (3, 8, 8)).state_dict()) == [
        "stem.weight",
        "stem.bias",
        "norm/1.weight",
        "norm/1.bias",
        "norm/1.running_mean",
        "norm/1.running_var",
        "a/b.weight",
        "a/b.bias",
        "last.weight",
        "last.bias",
    ]


def test_a_state_is_loaded_again():
    one, other = made(RESIDUAL, (3, 8, 8), 1), made(RESIDUAL, (3, 8, 8), 2)
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(one.eval()(x), other.eval()(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_is_whole(copied):
    module = made(RESIDUAL, (3, 8, 8))
    other = copied(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    x = torch.randn(2, 3, 8, 8)
    assert not module(x).any()
    assert other(x).any()


def test_float32_on_the_cpu_in_training():
    module = made(RESIDUAL, (3, 8, 8))
    assert module.training
    assert {(tensor.dtype, tensor.device.type) for tensor in module.state_dict().values()} == {(torch.float32, "cpu")}


def test_channels_last_memory_flows_through():
    module = made(RESIDUAL, (3, 8, 8)).to(memory_format=torch.channels_last)
    contiguous = []

    def watch(_module, _inputs, output):
        contiguous.append(output.is_contiguous(memory_format=torch.channels_last))

    for part in module.children():
        part.register_forward_hook(watch)
    y = module(torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last))
    assert len(contiguous) == 5
    assert all(contiguous)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_what_is_used_twice_is_not_overwritten():
    """`stem`'s output, before its ReLU, goes to two layers."""
    source = [
        layer("Dense", "stem", units=4),
        layer("ReLU", "relu", ["stem"]),
        layer("Add", "sum", ["relu", "stem"]),
    ]
    module = made(source, (3,))
    x = torch.randn(5, 3, requires_grad=True)
    stem = torch.nn.functional.linear(x, module.get_submodule("stem").weight, module.get_submodule("stem").bias)
    torch.testing.assert_close(module(x), stem.relu() + stem)
    torch.autograd.gradcheck(module.double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True))


def test_the_input_is_not_overwritten():
    x = torch.randn(4, 3)
    before = x.clone()
    made([layer("ReLU", "a"), layer("Activation", "b", activation="sigmoid")], (3,))(x)
    assert torch.equal(x, before)


def test_tensors_are_let_go_when_nobody_needs_them():
    source = [layer("Dropout", f"d{number}", rate=0.5) for number in range(5)]
    module = made(source, (3,))
    alive = []

    def watch(_module, inputs, output):
        import weakref

        alive.append(weakref.ref(output))

    for part in module.children():
        part.register_forward_hook(watch)
    with torch.no_grad():
        y = module(torch.randn(2, 3))
    assert [reference() is not None for reference in alive] == [False, False, False, False, True]
    assert y is alive[-1]()


def test_a_frozen_layer_stays_as_it_is():
    source = [layer("Dense", "d", units=3, trainable=False), layer("BatchNormalization", "n", trainable=False)]
    source.append(layer("Dense", "e", units=2))
    module = made(source, (3,))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    module.train()(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"e.weight", "e.bias"}


@pytest.mark.parametrize("padding", [1, [2, 0]])
def test_explicit_padding_of_convolutions(padding):
    around = (1, 1) if padding == 1 else (2, 0)
    module = made([layer("Conv2D", "c", filters=2, kernel_size=3, padding=padding, strides=2)], (3, 6, 5))
    x = torch.randn(2, 3, 6, 5)
    weight, bias = module.state_dict()["c.weight"], module.state_dict()["c.bias"]
    torch.testing.assert_close(module(x), torch.nn.functional.conv2d(x, weight, bias, 2, around))
    back = made([layer("Conv2DTranspose", "c", filters=2, kernel_size=3, padding=padding, strides=2)], (3, 6, 5))
    weight, bias = back.state_dict()["c.weight"], back.state_dict()["c.bias"]
    torch.testing.assert_close(back(x), torch.nn.functional.conv_transpose2d(x, weight, bias, 2, around))


@pytest.mark.parametrize("source", [RESIDUAL, [layer("Dense", "d", units=3), layer("BatchNormalization", "n")]])
def test_autocast(source):
    """Half precision by autocast, the moving statistics in single."""
    shape = (3, 8, 8)
    module, x = made(source, shape), torch.randn(4, *shape)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    y.float().sum().backward()
    torch.testing.assert_close(y.float(), made(source, shape)(x), rtol=0.05, atol=0.1)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
