"""LAMB against the formula in NumPy, and against pytorch_optimizer where that follows the paper."""

import numpy as np
import pytest
import torch
from pytorch_optimizer import Lamb

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.optimizer import lamb

CASES = [
    {},
    {"weight_decay": 0.1, "eps": 1e-3},
    {"beta1": 0.7, "beta2": 0.9},
    {"amsgrad": True, "beta2": 0.6},
    {"amsgrad": True, "weight_decay": 0.05, "beta1": 0.0},
]


def rate(step):
    """It changes, as a schedule changes it."""
    return 0.03 * 0.9**step


def rule(w, g, s, k, lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g**2
    s["max"] = np.maximum(s.get("max", 0), s["v"])
    m, v = s["m"] / (1 - beta1**k), (s["max"] if amsgrad else s["v"]) / (1 - beta2**k)
    update = m / (np.sqrt(v) + eps) + weight_decay * w
    of_w, of_update = np.linalg.norm(w), np.linalg.norm(update)
    return w - lr * (1.0 if of_w == 0 or of_update == 0 else of_w / of_update) * update


@pytest.mark.parametrize("keys", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
def test_twenty_steps_are_the_formula(weights, build, train, by_hand, keys, dtype, tolerance):
    parameters = weights(dtype)
    train(build(parameters, type="LAMB", **keys), parameters, rate=rate)
    for parameter, expected in zip(parameters, by_hand(rule, rate, **keys), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "keys",
    [
        # Without a decay the trust ratio takes out the factor that the correction of the bias is.
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-30},
        # Nothing is gathered: there is no bias.
        {"beta1": 0.0, "beta2": 0.0, "eps": 1e-30, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_twenty_steps_are_pytorch_optimizers(weights, build, train, keys):
    """It corrects no bias, and cuts norms of weights off at 10: these are smaller."""
    ours, theirs = weights(torch.float64), weights(torch.float64)
    train(build(ours, type="LAMB", learning_rate=0.01, **keys), ours)
    betas, decay = (keys["beta1"], keys["beta2"]), keys.get("weight_decay", 0.0)
    # Where it divides the learning rate by a bias, that is no part of the paper.
    options = {"weight_decay": decay, "weight_decouple": False, "adam_debias": True}
    train(Lamb(theirs, lr=0.01, betas=betas, eps=keys["eps"], **options), theirs)
    for place in (0, 1, 2):
        torch.testing.assert_close(ours[place], theirs[place], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("keys", CASES, ids=str)
def test_a_state_that_was_saved_goes_on_bit_by_bit(weights, build, train, copied, keys):
    whole, halves = weights(torch.float32), weights(torch.float32)
    train(build(whole, type="LAMB", **keys), whole)
    first = build(halves, type="LAMB", **keys)
    train(first, halves, range(9))
    second = build(halves, type="LAMB", **keys)
    second.load_state_dict(copied(first))
    train(second, halves, range(9, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_a_parameter_that_joins_later_begins_at_its_first_step(build):
    """The bias is each parameter's own."""
    early, late = (torch.nn.Parameter(torch.full((2,), 2.0)) for _ in range(2))
    optimizer = build([early, late], type="LAMB")
    early.grad = torch.tensor([1.0, -2.0])
    optimizer.step()
    after_one = early.detach().clone()
    early.grad, late.grad = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -2.0])
    optimizer.step()
    torch.testing.assert_close(late.detach(), after_one)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"beta2": 1}, "optimizer.beta2: 1 does not fit\n    allowed: less than 1"),
        (
            {"momentum": 0.1},
            "optimizer.momentum: unknown key\n    allowed: type, learning_rate, lr_scheduler, clip_norm, accumulate, "
            "beta1, beta2, weight_decay, eps, amsgrad",
        ),
    ],
)
def test_what_is_refused(keys, message):
    with pytest.raises(Refused) as refused:
        parse(lamb.LAMB, {"type": "Lamb", **keys}, "optimizer")
    assert str(refused.value) == message
