"""LARS: You, Gitman, Ginsburg, "Large batch training of convolutional networks", arXiv:1708.03888, algorithm 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rml_core.config.names import OneOf
from rml_core.optimizer.making import trainable, uncompiled
from rml_core.optimizer.torch_native import Momentum

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rml_core.optimizer.foreach import State


class LARS(Momentum):
    """Stochastic gradient descent whose steps are in proportion to the norm of each weight tensor (You, Gitman,
    Ginsburg, arXiv:1708.03888)."""

    type: Annotated[str, OneOf("optimizer", "LARS")]
    learning_rate: float = Field(0.01, gt=0, examples=[0.3])
    """The learning rate, before the scheduler's factor and the one of each tensor: `eta` makes that a small one."""
    eta: float = Field(1e-3, gt=0)
    """A tensor's learning rate is multiplied by eta * ||w|| / (||g|| + weight_decay * ||w||); by 1 where ||w|| or ||g||
    is 0."""

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        from rml_core.optimizer.foreach import Foreach

        kind: Any = uncompiled(Foreach)
        optimizer: torch.optim.Optimizer = kind(
            trainable(parameters),
            lars,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=self.dampening,
            nesterov=self.nesterov,
            eta=self.eta,
        )
        return optimizer


def lars(weights: list[Tensor], gradients: list[Tensor], states: list[State], options: Mapping[str, Any]) -> None:
    """v = momentum * v + (1 - dampening) * d with d = lr * local * (g + weight_decay * w); w -= v, with Nesterov's
    momentum w -= d + momentum * v. The first v is d, as torch's SGD has it."""
    import torch

    from rml_core.optimizer.foreach import norms, ratios

    decay, momentum = options["weight_decay"], options["momentum"]
    of_weights, of_gradients = norms(weights), norms(gradients)
    local = ratios(options["eta"] * of_weights, of_gradients + decay * of_weights, of_weights, of_gradients)
    steps = list(torch._foreach_add(gradients, weights, alpha=decay))
    torch._foreach_mul_(steps, local)
    torch._foreach_mul_(steps, options["lr"])
    if momentum:
        known = [place for place, state in enumerate(states) if "velocity" in state]
        for place in set(range(len(states))) - set(known):
            states[place]["velocity"] = steps[place].clone()
        if known:
            moved = [states[place]["velocity"] for place in known]
            torch._foreach_mul_(moved, momentum)
            torch._foreach_add_(moved, [steps[place] for place in known], alpha=1 - options["dampening"])
        velocities = [state["velocity"] for state in states]
        if options["nesterov"]:
            torch._foreach_add_(steps, velocities, alpha=momentum)
        else:
            steps = velocities
    torch._foreach_sub_(weights, steps)
