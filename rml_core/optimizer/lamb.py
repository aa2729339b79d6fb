"""LAMB: You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", arXiv:1904.00962,
algorithm 2, with phi the identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from rml_core.config.names import OneOf
from rml_core.optimizer.making import trainable, uncompiled
from rml_core.optimizer.torch_native import Moments, NotNegative

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rml_core.optimizer.foreach import State


class LAMB(Moments):
    """Adam whose steps are in proportion to the norm of each weight tensor (You et al., arXiv:1904.00962)."""

    type: Annotated[str, OneOf("optimizer", "LAMB")]
    weight_decay: NotNegative = 0.0
    """This part of the weights is added to Adam's update, before its norm is taken."""

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        from rml_core.optimizer.foreach import Foreach

        kind: Any = uncompiled(Foreach)
        optimizer: torch.optim.Optimizer = kind(
            trainable(parameters),
            lamb,
            lr=self.learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=self.amsgrad,
        )
        return optimizer


def lamb(weights: list[Tensor], gradients: list[Tensor], states: list[State], options: Mapping[str, Any]) -> None:
    """w -= lr * ||w|| / ||u|| * u with u = m / (sqrt(v) + eps) + weight_decay * w, m and v corrected for their bias;
    the ratio is 1 where either norm is 0. amsgrad: v is the greatest one so far, before the correction, as torch's."""
    import torch

    from rml_core.optimizer.foreach import norms, ratios

    beta1, beta2 = options["beta1"], options["beta2"]
    for weight, state in zip(weights, states, strict=True):
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
            if options["amsgrad"]:
                state["greatest"] = torch.zeros_like(weight)
        state["step"] += 1
    means, squares = [state["mean"] for state in states], [state["square"] for state in states]
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
    if options["amsgrad"]:
        greatest = [state["greatest"] for state in states]
        torch._foreach_maximum_(greatest, squares)
        squares = greatest
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1 - beta2 ** state["step"]) ** 0.5 for state in states])
    torch._foreach_add_(roots, options["eps"])
    updates = torch._foreach_div(means, [1 - beta1 ** state["step"] for state in states])
    torch._foreach_div_(updates, roots)
    if options["weight_decay"]:
        torch._foreach_add_(updates, weights, alpha=options["weight_decay"])
    of_weights, of_updates = norms(weights), norms(updates)
    torch._foreach_mul_(updates, ratios(of_weights, of_updates, of_weights, of_updates))
    torch._foreach_add_(weights, updates, alpha=-options["lr"])
