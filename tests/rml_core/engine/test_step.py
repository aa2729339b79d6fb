from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rml_core.config.section import parse
from rml_core.engine.step import Training, gradient_norm, step
from rml_core.optimizer import OPTIMIZERS

INPUTS = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0], [-2.0, 1.0, 1.0], [4.0, -1.0, 0.5]])
TARGETS = torch.tensor([[1.0], [2.0], [0.0], [-3.0]])


def weights(training: Training) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().double() for parameter in training.parameters])


def gradient(training: Training, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of the mean square error, by its formula."""
    values = weights(training)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
    return 2 / len(inputs) * inputs.T @ (inputs @ values - targets[:, 0].double())


@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_loss_before_the_update_and_the_norm_of_the_gradient(training: Callable[..., Training], precision: str):
    state = training(precision)
    before, expected = weights(state), gradient(state, INPUTS, TARGETS)
    inputs, targets = INPUTS.to(state.precision.dtype), TARGETS.to(state.precision.dtype)
    wanted = F.mse_loss(state.network(inputs), targets)
    loss, norm = step(state, inputs, targets, share=1, first=True, update=True)
    assert not loss.requires_grad
    assert not norm.requires_grad
    assert loss.item() == wanted.item()
    torch.testing.assert_close(norm.double(), expected.norm(), rtol=1e-6, atol=0)
    torch.testing.assert_close(weights(state), before - 0.1 * expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 1e6])
def test_clipping_is_by_the_common_norm(training: Callable[..., Training], clip_norm: float):
    state = training(clip_norm=clip_norm)
    before, expected = weights(state), gradient(state, INPUTS, TARGETS)
    _, norm = step(state, INPUTS, TARGETS, share=1, first=True, update=True)
    torch.testing.assert_close(norm.double(), expected.norm(), rtol=1e-6, atol=0)
    scale = min(1.0, clip_norm / expected.norm().item())
    torch.testing.assert_close(weights(state), before - 0.1 * scale * expected, rtol=1e-5, atol=1e-6)


def test_parts_of_a_batch_make_one_update(training: Callable[..., Training]):
    state = training()
    before, expected = weights(state), gradient(state, INPUTS, TARGETS)
    part = gradient(state, INPUTS[:2], TARGETS[:2])
    loss, norm = step(state, INPUTS[:2], TARGETS[:2], share=0.5, first=True, update=False)
    assert torch.equal(weights(state), before)
    assert loss.item() == F.mse_loss(state.network(INPUTS[:2]), TARGETS[:2]).item()
    torch.testing.assert_close(norm.double(), part.norm() / 2, rtol=1e-6, atol=0)
    _, norm = step(state, INPUTS[2:], TARGETS[2:], share=0.5, first=False, update=True)
    torch.testing.assert_close(norm.double(), expected.norm(), rtol=1e-6, atol=0)
    torch.testing.assert_close(weights(state), before - 0.1 * expected, rtol=1e-6, atol=1e-6)
    # The next update knows nothing of the last one.
    before, expected = weights(state), gradient(state, INPUTS, TARGETS)
    step(state, INPUTS, TARGETS, share=1, first=True, update=True)
    torch.testing.assert_close(weights(state), before - 0.1 * expected, rtol=1e-6, atol=1e-6)


def test_fp16_leaves_out_an_update_whose_gradients_overflow(training: Callable[..., Training]):
    state = training("fp16")
    assert state.scaler is not None
    before = weights(state)
    loss, norm = step(state, 100 * INPUTS, TARGETS, share=1, first=True, update=True)
    assert loss.isfinite()
    assert not norm.isfinite()
    assert torch.equal(weights(state), before)
    assert state.scaler.get_scale() == 32768.0


def test_fp16_norms_are_unscaled(training: Callable[..., Training]):
    state = training("fp16")
    expected = gradient(state, 1e-3 * INPUTS, 1e-3 * TARGETS)
    for update in (False, True):
        _, norm = step(state, 1e-3 * INPUTS, 1e-3 * TARGETS, share=1, first=True, update=update)
        torch.testing.assert_close(norm.double(), expected.norm(), rtol=5e-3, atol=0)


def test_frozen_parameters_have_no_part(training: Callable[..., Training]):
    network = training().network
    network.bias.requires_grad = False
    optimizer = torch.optim.SGD([network.weight], lr=0.1)
    state = training()
    frozen = Training.of(network, F.mse_loss, optimizer, state.precision, state.device, None)
    assert frozen.parameters == [network.weight]
    expected = gradient(state, INPUTS, TARGETS)[:3]
    _, norm = step(frozen, INPUTS, TARGETS, share=1, first=True, update=True)
    torch.testing.assert_close(norm.double(), expected.norm(), rtol=1e-6, atol=0)
    assert network.bias.item() == 0.25


def test_no_gradient_has_no_norm():
    assert gradient_norm([]).item() == 0
    assert gradient_norm([torch.nn.Parameter(torch.ones(2))]).item() == 0


OPTIMIZERS_WITH_STATE = [
    {"type": "SGD", "momentum": 0.9, "dampening": 0.5},
    {"type": "Adagrad"},
    {"type": "Adam", "amsgrad": True},
    {"type": "AdamW", "weight_decay": 0.1},
    {"type": "RMSprop", "momentum": 0.9, "centered": True},
    {"type": "LARS", "momentum": 0.9, "eta": 0.1},
    {"type": "LAMB", "amsgrad": True},
]


@pytest.mark.parametrize("keys", OPTIMIZERS_WITH_STATE, ids=lambda keys: keys["type"])
def test_an_update_that_is_left_out_counts_for_nothing(training: Callable[..., Training], keys: dict[str, Any]):
    """Neither as the first one, nor later: what follows is as if it had not been tried."""
    section = parse(OPTIMIZERS[keys["type"]], keys, "")
    overflowing, plain = training("fp16"), training("fp16")
    for state in (overflowing, plain):
        assert state.scaler is not None
        state.optimizer = section.build(state.parameters, scaled=True)
        # A scale that nothing but the large batch is too much for, and that is the same before and after.
        state.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, backoff_factor=1.0 - 2**-50)
    for number in range(4):
        if number in (0, 2):
            _, norm = step(overflowing, 3e4 * INPUTS, TARGETS, share=1, first=True, update=True)
            assert not norm.isfinite()
        for state in (overflowing, plain):
            step(state, INPUTS, TARGETS, share=1, first=True, update=True)
    assert torch.equal(weights(overflowing), weights(plain))
    one, other = (state.optimizer.state_dict()["state"] for state in (overflowing, plain))
    assert one.keys() == other.keys()
    for place in one:
        assert one[place].keys() == other[place].keys()
        assert all(
            torch.equal(torch.as_tensor(one[place][key]), torch.as_tensor(other[place][key])) for key in one[place]
        )


@pytest.mark.parametrize("precision", ["single", "double", "bf16", "fp16"])
def test_what_regularisers_add_is_in_loss_and_gradient(training: Callable[..., Training], precision: str):
    state = training(precision)

    def penalty() -> torch.Tensor:
        return 0.1 * sum(((parameter**2).sum() for parameter in state.parameters), torch.zeros(()))

    inputs, targets = INPUTS.to(state.precision.dtype), TARGETS.to(state.precision.dtype)
    plain, _ = step(training(precision), inputs, targets, share=1, first=True, update=True)
    state.penalty = penalty
    before, expected = weights(state), gradient(state, INPUTS, TARGETS) + 0.2 * weights(state)
    added = penalty().item()
    loss, norm = step(state, inputs, targets, share=1, first=True, update=True)
    assert loss.item() == pytest.approx(plain.item() + added, rel=1e-6)
    if precision != "fp16":
        tolerance = 2e-2 if precision == "bf16" else 1e-6
        torch.testing.assert_close(norm.double(), expected.norm(), rtol=tolerance, atol=0)
        torch.testing.assert_close(weights(state), before - 0.1 * expected, rtol=tolerance, atol=tolerance)
    state.penalty = lambda: None
    before = weights(state)
    loss, _ = step(state, inputs, targets, share=1, first=True, update=False)
    assert torch.equal(weights(state), before)


def test_a_penalty_enters_parts_of_an_update_once(training: Callable[..., Training]):
    whole, parts = training(), training()
    for state in (whole, parts):
        state.penalty = lambda state=state: 0.1 * sum((parameter**2).sum() for parameter in state.parameters)
    step(whole, INPUTS, TARGETS, share=1, first=True, update=True)
    step(parts, INPUTS[:2], TARGETS[:2], share=0.5, first=True, update=False)
    step(parts, INPUTS[2:], TARGETS[2:], share=0.5, first=False, update=True)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-6, atol=1e-6)
