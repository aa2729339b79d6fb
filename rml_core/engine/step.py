"""One batch: forward, backward, gradient norm, update.

Nothing here waits for the device, but for fp16 with an optimizer that has no fused kernel: whether gradients have
overflowed decides on the host there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rml_core.engine.precision import Precision

if TYPE_CHECKING:
    from rml_core.loss.section import Objective

# what the network itself adds to the loss after its forward pass: a scalar, or None
Penalty = Callable[[], Tensor | None]


@dataclass
class Training:
    """What a step changes: the network's weights, the optimizer's state, the loss scale of fp16."""

    network: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    parameters: Sequence[nn.Parameter]
    precision: Precision
    device: torch.device
    clip_norm: float | None
    scaler: torch.amp.GradScaler | None
    penalty: Penalty | None = None

    @classmethod
    def of(
        cls,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        device: torch.device,
        clip_norm: float | None,
        penalty: Penalty | None = None,
    ) -> Training:
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        scaler = torch.amp.GradScaler(device.type) if precision.scaled else None
        return cls(network, objective, optimizer, parameters, precision, device, clip_norm, scaler, penalty)


def step(
    state: Training,
    inputs: Tensor,
    targets: Tensor,
    kept: Tensor | None = None,
    *,
    share: float,
    first: bool,
    update: bool,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of `share` times the batch's loss; `first` forgets earlier ones, `update` moves the weights.

    Returns the loss before the update, with what the regularisers add, and the L2 norm of all gradients, unscaled
    and before clipping: scalars on the device. `share` is 1 unless several batches make one update.
    """
    if first:
        for parameter in state.parameters:
            parameter.grad = None
    with state.precision.context(state.device):
        loss = state.objective(state.network(inputs), targets, kept)
    loss = penalised(loss, state.penalty)
    scaled = loss if share == 1 else loss * share
    if state.scaler is None:
        torch.autograd.backward(scaled)
    else:
        torch.autograd.backward(state.scaler.scale(scaled))
        if update:
            state.scaler.unscale_(state.optimizer)
    norm = gradient_norm(state.parameters)
    if state.scaler is not None and not update:
        norm = norm / state.scaler.scale(torch.ones_like(norm))
    if update:
        if state.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(state.parameters, state.clip_norm, norm)
        if state.scaler is None:
            state.optimizer.step()
        else:
            state.scaler.step(state.optimizer)
            state.scaler.update()
    return loss.detach(), norm


def penalised(loss: Tensor, penalty: Penalty | None) -> Tensor:
    """The loss that is minimised: with what the regularisers add."""
    added = penalty() if penalty is not None else None
    return loss if added is None else loss + added


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients together, on the device."""
    gradients: list[Any] = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
