import io
from typing import Annotated

import numpy as np
import pytest
import torch

from rml_core.config.names import Tagged
from rml_core.config.problem import Refused
from rml_core.config.section import Section, parse
from rml_core.optimizer import LATER, OPTIMIZERS, OptimizerSection

STEPS = 20


class Holder(Section):
    optimizer: Annotated[OptimizerSection, Tagged("optimizer", "type", OPTIMIZERS, LATER)]


def optimizer(**keys) -> OptimizerSection:
    return parse(Holder, {"optimizer": keys}, "").optimizer


def sgd(w, g, s, k, learning_rate=0.01, momentum=0.0, weight_decay=0.0, dampening=0.0, nesterov=False):
    g = g + weight_decay * w
    if momentum:
        s["v"] = momentum * s["v"] + (1 - dampening) * g if "v" in s else g
        g = g + momentum * s["v"] if nesterov else s["v"]
    return w - learning_rate * g


def adagrad(w, g, s, k, learning_rate=0.01, lr_decay=0.0, weight_decay=0.0):
    g = g + weight_decay * w
    s["sum"] = s.get("sum", 0) + g**2
    return w - learning_rate / (1 + (k - 1) * lr_decay) * g / (np.sqrt(s["sum"]) + 1e-10)


def adam(w, g, s, k, learning_rate=0.01, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False):
    return adamw(w, g + weight_decay * w, s, k, learning_rate, beta1, beta2, 0.0, eps, amsgrad)


def adamw(w, g, s, k, learning_rate=0.01, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False):
    w = w * (1 - learning_rate * weight_decay)
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g**2
    s["max"] = np.maximum(s.get("max", 0), s["v"])
    v = (s["max"] if amsgrad else s["v"]) / (1 - beta2**k)
    return w - learning_rate * s["m"] / (1 - beta1**k) / (np.sqrt(v) + eps)


def rmsprop(w, g, s, k, learning_rate=0.01, momentum=0.0, alpha=0.99, eps=1e-8, centered=False, weight_decay=0.0):
    g = g + weight_decay * w
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g**2
    s["mean"] = alpha * s.get("mean", 0) + (1 - alpha) * g
    step = g / (np.sqrt(s["v"] - s["mean"] ** 2 if centered else s["v"]) + eps)
    if momentum:
        s["buffer"] = step = momentum * s.get("buffer", 0) + step
    return w - learning_rate * step


RULES = {"SGD": sgd, "Adagrad": adagrad, "Adam": adam, "AdamW": adamw, "RMSprop": rmsprop}
RENAMED = {"learning_rate": "lr"}
CASES = [
    {"type": "SGD"},
    {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9},
    {"type": "SGD", "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.05},
    {"type": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"type": "Adagrad"},
    {"type": "Adagrad", "learning_rate": 0.1, "lr_decay": 0.1, "weight_decay": 0.02},
    {"type": "Adam"},
    {"type": "Adam", "beta1": 0.7, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1},
    {"type": "Adam", "amsgrad": True, "beta2": 0.6},
    {"type": "AdamW"},
    {"type": "AdamW", "weight_decay": 0.3, "learning_rate": 0.05},
    {"type": "AdamW", "weight_decay": 0.1, "amsgrad": True, "beta1": 0.0},
    {"type": "RMSprop"},
    {"type": "RMSprop", "momentum": 0.9, "alpha": 0.9, "weight_decay": 0.1},
    {"type": "RMSprop", "centered": True, "eps": 1e-2},
]


def weights(dtype) -> list[torch.nn.Parameter]:
    rng = np.random.default_rng(1)
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(shape), dtype=dtype)) for shape in [(7, 5), (19,)]]


def train(built: torch.optim.Optimizer, parameters, steps=range(STEPS)) -> None:
    for step in steps:
        rng = np.random.default_rng(100 + step)
        for parameter in parameters:
            parameter.grad = torch.tensor(rng.standard_normal(parameter.shape), dtype=parameter.dtype)
        built.step()


@pytest.mark.parametrize("keys", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
def test_twenty_steps_are_the_formula(keys, dtype, tolerance):
    parameters = weights(dtype)
    train(optimizer(**keys).build(parameters), parameters)

    options = {key: value for key, value in keys.items() if key != "type"}
    expected, states = [w.detach().double().numpy() for w in weights(dtype)], [{}, {}]
    for step in range(STEPS):
        rng = np.random.default_rng(100 + step)
        for i, (w, state) in enumerate(zip(expected, states, strict=True)):
            expected[i] = RULES[keys["type"]](w, rng.standard_normal(w.shape), state, step + 1, **options)
    for parameter, w in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keys", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)], ids=str)
def test_twenty_steps_are_torchs_plain_ones(keys, dtype, tolerance):
    parameters, expected = weights(dtype), weights(dtype)
    train(optimizer(**keys).build(parameters), parameters)

    options = {RENAMED.get(key, key): value for key, value in keys.items() if key not in ("type", "beta1", "beta2")}
    options["lr"] = keys.get("learning_rate", 0.01)
    if keys["type"].startswith("Adam"):
        options["betas"] = (keys.get("beta1", 0.9), keys.get("beta2", 0.999))
    if keys["type"] == "AdamW":
        options.setdefault("weight_decay", 0)
    train(getattr(torch.optim, keys["type"])(expected, foreach=False, **options), expected)
    for parameter, w in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), w.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_a_state_that_was_saved_goes_on_bit_by_bit(keys):
    whole, halves = weights(torch.float32), weights(torch.float32)
    train(optimizer(**keys).build(whole), whole)

    first = optimizer(**keys).build(halves)
    train(first, halves, range(9))
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    second = optimizer(**keys).build(halves)
    second.load_state_dict(torch.load(file, weights_only=True))
    train(second, halves, range(9, STEPS))
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_kernel_is_used_where_there_is_one(name, dtype):
    assert optimizer(type=name).build(weights(dtype)).defaults["fused"] is True


def test_only_trainable_parameters_are_updated():
    frozen, free = weights(torch.float32)
    frozen.requires_grad_(False)
    assert optimizer(type="sgd").build([frozen, free]).param_groups[0]["params"] == [free]


def test_a_frozen_network_is_refused():
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    with pytest.raises(Refused) as refused:
        optimizer(type="adam").build([frozen])
    assert str(refused.value) == (
        "neural_network.layers: no layer has a trainable weight\n"
        '    set "trainable": true on a layer with weights, or leave out "data.input_path" to evaluate only'
    )


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "LARS", "LAMB"])
def test_defaults_are_the_specifications(name):
    specified = {
        "SGD": {"momentum": 0, "weight_decay": 0, "dampening": 0, "nesterov": False},
        "Adagrad": {"lr_decay": 0, "weight_decay": 0},
        "Adam": {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0, "eps": 1e-8, "amsgrad": False},
        "AdamW": {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0, "eps": 1e-8, "amsgrad": False},
        "RMSprop": {"momentum": 0, "alpha": 0.99, "eps": 1e-8, "centered": False, "weight_decay": 0},
        "LARS": {"momentum": 0, "weight_decay": 0, "dampening": 0, "nesterov": False, "eta": 1e-3},
        "LAMB": {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0, "eps": 1e-8, "amsgrad": False},
    }[name]
    common = {"type": name, "learning_rate": 0.01, "lr_scheduler": None, "clip_norm": None, "accumulate": 1}
    assert optimizer(type=name.upper()).model_dump() == common | specified


def test_the_learning_rate_of_an_epoch():
    section = optimizer(type="SGD", learning_rate=0.4, lr_scheduler={"type": "step", "gamma": 0.5, "step_size": 1})
    assert [section.learning_rate_of(epoch) for epoch in (1, 2, 3)] == [0.4, 0.2, 0.1]
    assert optimizer(type="SGD").learning_rate_of(7) == 0.01


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"type": "SGD", "nesterov": True},
            'optimizer.nesterov: true needs a momentum\n    add "momentum": 0.9, say',
        ),
        (
            {"type": "SGD", "nesterov": True, "momentum": 0.9, "dampening": 0.1},
            'optimizer.nesterov: true does not go with dampening\n    remove "dampening"',
        ),
        ({"type": "Adam", "beta1": 1}, "optimizer.beta1: 1 does not fit\n    allowed: less than 1"),
        (
            {"type": "Adam", "beta2": -0.1},
            "optimizer.beta2: -0.1 does not fit\n    allowed: greater than or equal to 0",
        ),
        (
            {"type": "SGD", "learning_rate": 0},
            "optimizer.learning_rate: 0 does not fit\n    allowed: greater than 0",
        ),
        (
            {"type": "SGD", "accumulate": 0},
            "optimizer.accumulate: 0 does not fit\n    allowed: greater than or equal to 1",
        ),
        (
            {"type": "Hessian"},
            'optimizer.type: optimizer "Hessian" is not available yet\n'
            "    allowed: SGD, Adagrad, Adam, AdamW, RMSprop, LARS, LAMB",
        ),
        (
            {"type": "SGD", "lr_scheduler": {"type": "step", "gamma": 0.1, "step": 1}},
            "optimizer.lr_scheduler.step_size: is missing\n"
            "optimizer.lr_scheduler.step: unknown key\n"
            "    allowed: type, verbose, gamma, step_size\n"
            '    did you mean "step_size"?',
        ),
    ],
)
def test_what_is_refused(keys, message):
    with pytest.raises(Refused) as refused:
        optimizer(**keys)
    assert str(refused.value) == message
