"""LARS against the formula in NumPy, and against pytorch_optimizer where that follows the paper."""

import numpy as np
import pytest
import torch
from pytorch_optimizer import LARS

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.optimizer import lars

CASES = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.05, "eta": 0.02},
    {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]


def rate(step):
    """It changes, as a schedule changes it."""
    return 0.3 * 0.9**step


def rule(w, g, s, k, lr, momentum=0.0, weight_decay=0.0, dampening=0.0, nesterov=False, eta=1e-3):
    of_w, of_g = np.linalg.norm(w), np.linalg.norm(g)
    local = 1.0 if of_w == 0 or of_g == 0 else eta * of_w / (of_g + weight_decay * of_w)
    d = lr * local * (g + weight_decay * w)
    s["v"] = momentum * s["v"] + (1 - dampening) * d if "v" in s else d
    return w - (d + momentum * s["v"] if nesterov else s["v"] if momentum else d)


@pytest.mark.parametrize("keys", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=str)
def test_twenty_steps_are_the_formula(weights, build, train, by_hand, keys, dtype, tolerance):
    parameters = weights(dtype)
    train(build(parameters, type="LARS", **keys), parameters, rate=rate)
    for parameter, expected in zip(parameters, by_hand(rule, rate, **keys), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("keys", [case for case in CASES if "dampening" not in case], ids=str)
def test_twenty_steps_are_pytorch_optimizers(weights, build, train, keys):
    """It leaves vectors alone, and takes the learning rate into the velocity later: the rate stays."""
    ours, theirs = weights(torch.float64), weights(torch.float64)
    train(build(ours, type="LARS", learning_rate=0.3, **keys), ours)
    options = {"momentum": 0.0, **keys, "trust_coefficient": keys.get("eta", 1e-3)}
    options.pop("eta", None)
    train(LARS(theirs, lr=0.3, **options), theirs)
    for place in (0, 2):
        torch.testing.assert_close(ours[place], theirs[place], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_a_state_that_was_saved_goes_on_bit_by_bit(weights, build, train, copied, keys):
    whole, halves = weights(torch.float32), weights(torch.float32)
    train(build(whole, type="LARS", **keys), whole)
    first = build(halves, type="LARS", **keys)
    train(first, halves, range(9))
    second = build(halves, type="LARS", **keys)
    second.load_state_dict(copied(first))
    train(second, halves, range(9, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_a_parameter_without_a_gradient_stays(build):
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = build([used, unused], type="LARS", momentum=0.9)
    for _ in range(2):
        used.grad = torch.ones(2)
        optimizer.step()
    assert unused.tolist() == [1, 1]
    assert used.tolist() != [1, 1]
    assert unused not in optimizer.state


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nesterov": True}, 'optimizer.nesterov: true needs a momentum\n    add "momentum": 0.9, say'),
        ({"eta": 0}, "optimizer.eta: 0 does not fit\n    allowed: greater than 0"),
        (
            {"trust_coefficient": 0.1},
            "optimizer.trust_coefficient: unknown key\n    allowed: type, learning_rate, lr_scheduler, clip_norm, "
            "accumulate, momentum, weight_decay, dampening, nesterov, eta",
        ),
    ],
)
def test_what_is_refused(keys, message):
    with pytest.raises(Refused) as refused:
        parse(lars.LARS, {"type": "lars", **keys}, "optimizer")
    assert str(refused.value) == message


def test_a_frozen_network_is_refused(build):
    with pytest.raises(Refused, match=r"neural_network\.layers: no layer has a trainable weight"):
        build([torch.nn.Parameter(torch.zeros(1), requires_grad=False)], type="LARS")
