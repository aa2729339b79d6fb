"""Losses of whole regions, from sums over batch and space: Dice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rml_core.config.names import OneOf
from rml_core.config.target import Target
from rml_core.loss.section import Fitted, Ignoring

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.loss.section import Objective


class Dice(Ignoring):
    """Soft Dice, 1 - (2 sum(p t) + smooth) / (sum p + sum t + smooth), one a class, and their (weighted) mean.

    A class that is neither the most probable one of any pixel nor in the target leaves the mean. A single channel
    is always in it: where there is nothing to find, its loss pushes p down.
    """

    function: Annotated[str, OneOf("loss function", "Dice")]
    smooth: Annotated[float, Field(ge=0)] = 1e-6
    """Added to both sides of the fraction."""

    def build(self, fitted: Fitted, output_shape: tuple[int | None, ...], target: Target) -> Objective:
        from rml_core.loss.classes import Constant, most_probable, one_hot, probabilities, share

        channels = output_shape[0] or 1
        source, smooth, values = fitted.source, self.smooth, target.kind == "values"
        ignored = self.ignored(target)
        weights = Constant(self.weight or [1.0] * channels)
        over = (0, *range(2, len(output_shape) + 1))

        def objective(output: Tensor, target: Tensor) -> Tensor:
            p = probabilities(output, source)
            t = target if values else one_hot(target, channels)
            chosen = one_hot(most_probable(p.detach()), channels) if channels > 1 else None
            if ignored is not None:
                kept = (target != ignored).unsqueeze(1)
                p, t = p * kept, t & kept
                chosen = chosen & kept if chosen is not None else None
            overlap = (p * t).sum(over)
            total = p.sum(over) + t.sum(over)
            # The formula over one fraction bar: 0, not 0/0, where nothing is counted.
            losses = (total - 2 * overlap) / (total + smooth).clamp(min=1e-12)
            if chosen is None:
                return losses[0]
            present = chosen.any(dim=over) | t.any(dim=over)
            weight = weights.like(losses) * present
            return share((weight * losses).sum(), weight.sum())

        return objective
