"""What the regularisers of a network add to its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Of the sum of absolute values, and of the sum of squares.
Factors = tuple[float, float]


class Penalty:
    """The sum over the weights, and over the outputs that the last forward pass has shown, each with its factors.

    `weights`: (module, its attribute, factors). Outputs are gathered only where `watching` is set: who does not
    ask for the penalty need not pay for it.
    """

    def __init__(self, weights: Sequence[tuple[nn.Module, str, Factors]]):
        self.watching = False
        self._weights = weights
        self._seen: list[Tensor] = []
        self._groups = tuple(_grouped([factors[power - 1] for _, _, factors in weights]) for power in (1, 2))

    def __call__(self) -> Tensor | None:
        """A scalar on the device, differentiable; None where there is nothing to add."""
        return self._with_seen(self._of_weights())

    def fixed(self) -> Callable[[], Tensor | None]:
        """The same as long as the weights stay as they are: their part is computed once, without a gradient."""
        with torch.no_grad():
            of_weights = self._of_weights()
        return lambda: self._with_seen(of_weights)

    def _of_weights(self) -> Tensor | None:
        if not self._weights:
            return None
        weights = [getattr(module, attribute) for module, attribute, _ in self._weights]
        total: Tensor = _Sums.apply(self._groups, *weights)  # type: ignore[no-untyped-call]
        return total

    def _with_seen(self, of_weights: Tensor | None) -> Tensor | None:
        parts, self._seen = self._seen, []
        if of_weights is not None:
            parts.append(of_weights)
        return sum(parts[1:], parts[0]) if parts else None

    def begin(self) -> None:
        """A forward pass begins: what an earlier one has shown is forgotten."""
        self._seen.clear()

    def see(self, output: Tensor, factors: Factors) -> None:
        """output: (N, ...), which counts with the mean over its N samples."""
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        sums = [wide.abs().sum(), wide.square().sum()]
        self._seen += [each * (factor / len(output)) for each, factor in zip(sums, factors, strict=True) if factor]


class Watched:
    """The step after a layer whose output has a regulariser: x -> x."""

    def __init__(self, penalty: Penalty, factors: Factors):
        self.penalty, self.factors = penalty, factors

    def __call__(self, x: Tensor) -> Tensor:
        if self.penalty.watching:
            self.penalty.see(x, self.factors)
        return x


# For each factor that is not 0 the places of the weights that have it.
Groups = dict[float, list[int]]


def _grouped(factors: Sequence[float]) -> Groups:
    groups: Groups = {}
    for place, factor in enumerate(factors):
        if factor:
            groups.setdefault(factor, []).append(place)
    return groups


class _Sums(torch.autograd.Function):
    """A few kernels for all weights together; autograd's own way takes a few for each of them."""

    @staticmethod
    def forward(ctx: Any, groups: tuple[Groups, Groups], *weights: Tensor) -> Tensor:
        ctx.groups = groups
        ctx.save_for_backward(*weights)
        total = weights[0].new_zeros(())
        for power, of_power in enumerate(groups, start=1):
            for factor, places in of_power.items():
                norms = torch.stack(torch._foreach_norm([weights[place] for place in places], power))
                total += factor * (norms**power).sum()
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = [None] * len(ctx.saved_tensors)
        for power, of_power in enumerate(ctx.groups, start=1):
            for factor, places in of_power.items():
                weights = [ctx.saved_tensors[place] for place in places]
                slopes = torch._foreach_sign(weights) if power == 1 else weights
                for place, part in zip(places, torch._foreach_mul(slopes, outer[0] * (factor * power)), strict=True):
                    before = gradients[place]
                    gradients[place] = part if before is None else before + part
        return (None, *gradients)
