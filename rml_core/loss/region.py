"""Losses of whole regions, from sums over batch and space.

Dice: Milletari, Navab, Ahmadi (arXiv:1606.04797), without squares below the fraction bar, as Sudre et al.
(arXiv:1707.03237) have it. Jaccard: Rahman and Wang, https://doi.org/10.1007/978-3-319-50835-1_22.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from rml_core.config.names import OneOf
from rml_core.config.target import Target
from rml_core.loss.section import Fitted, Shape, Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.loss.section import Objective


class Region(Weighted):
    """A loss a class, and their (weighted) mean.

    A class that is neither the most probable one of any pixel nor in the target leaves the mean. A single channel
    is always in it: where there is nothing to find, its loss pushes p down.
    """

    of_classes: ClassVar[bool] = True

    smooth: Annotated[float, Field(ge=0)] = 1e-6
    """Added to both sides of the fraction."""

    @abstractmethod
    def of_sums(self, overlap: Tensor, total: Tensor) -> Tensor:
        """The losses (C,) from sum(p t) and sum p + sum t. Over one fraction bar: 0, not 0/0, where nothing is."""

    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        from rml_core.loss.classes import Constant, counting, probabilities, share
        from rml_core.loss.pieces import seen_all
        from rml_core.loss.sums import chosen, sums_of_classes, sums_of_values

        channels = output_shape[0] or 1
        source, values = fitted.source, target.kind == "values"
        ignored, softmax = self.ignored(target), source == "logits" and channels > 1
        weights = Constant(self.weight or [1.0] * channels)

        def objective(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            if values or not softmax:
                output, target = counting(output, target, source, kept, None if values else ignored)
            if values:
                sums = sums_of_values(probabilities(output, source), target, kept)
            elif softmax:
                sums = sums_of_classes(output, target, ignored, softmax=True)
            else:
                sums = sums_of_classes(probabilities(output, source), target, ignored)
            losses = self.of_sums(sums.overlap, sums.p + sums.t)
            if channels == 1:
                return losses[0]
            present = sums.t > 0
            if not seen_all(present):
                if not values and ignored is not None:
                    kept = target != ignored
                present = present | chosen(output.detach(), kept)
            weight = weights.like(losses) * present
            return share((weight * losses).sum(), weight.sum())

        return objective


class Dice(Region):
    """Soft Dice, 1 - (2 sum(p t) + smooth) / (sum p + sum t + smooth), one a class, and their (weighted) mean.

    A class that is neither the most probable one of any pixel nor in the target leaves the mean. A single channel
    is always in it: where there is nothing to find, its loss pushes p down.
    """

    function: Annotated[str, OneOf("loss function", "Dice")]

    def of_sums(self, overlap: Tensor, total: Tensor) -> Tensor:
        return (total - 2 * overlap) / (total + self.smooth).clamp(min=1e-12)


class Jaccard(Region):
    """Soft intersection over union, 1 - (sum(p t) + smooth) / (sum p + sum t - sum(p t) + smooth), as Dice."""

    function: Annotated[str, OneOf("loss function", "Jaccard")]

    def of_sums(self, overlap: Tensor, total: Tensor) -> Tensor:
        return (total - 2 * overlap) / (total - overlap + self.smooth).clamp(min=1e-12)
