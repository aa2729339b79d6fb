"""An optimizer from an update rule that works on all tensors of a network at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# Of each parameter: what its updates gather.
State = dict[str, Any]
# rule(weights, gradients, states, options): moves the weights, in place. Gradients stay as they are.
Rule = Callable[[list[Tensor], list[Tensor], list[State], Mapping[str, Any]], None]


class Foreach(torch.optim.Optimizer):
    """`options`: the rule's numbers, with `lr` among them. Nothing waits for the device."""

    def __init__(self, parameters: list[torch.nn.Parameter], rule: Rule, **options: float | bool):
        super().__init__(parameters, options)
        self.rule = rule

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. `closure` is torch's, and never given."""
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if weights:
                gradients: list[Any] = [weight.grad for weight in weights]
                self.rule(weights, gradients, [self.state[weight] for weight in weights], group)


def norms(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """The L2 norm of each, a vector on the device."""
    return torch.stack(torch._foreach_norm(tensors))


def ratios(over: Tensor, under: Tensor, *norms: Tensor) -> list[Tensor]:
    """over / under, a scalar on the device for each tensor; 1 where one of `norms` is 0."""
    zero = torch.stack([each == 0 for each in norms]).any(0)
    return list(torch.where(zero, 1.0, over / under).unbind())
