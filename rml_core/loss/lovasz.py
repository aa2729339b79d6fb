"""Lovasz-softmax and Lovasz-hinge: Berman, Rannen Triki and Blaschko (arXiv:1705.08790)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rml_core.config.names import OneOf
from rml_core.config.target import Target
from rml_core.loss.section import Fitted, Shape, Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.loss.section import Objective

# One output that is a probability has to become a logit again.
AS_PROBABILITY = ("sigmoid", "probabilities")


class Lovasz(Weighted):
    """Lovasz-softmax: the (weighted) mean over the classes that are in the targets. One output: Lovasz-hinge.

    The hinge is one of logits. Where the network ends in sigmoid they are computed back; float32 has room for
    logits between -87 and 16, and a pixel beyond them has no gradient, as behind any sigmoid.
    """

    target_kinds: ClassVar[tuple[str, ...]] = ("labels", "mask")

    function: Annotated[str, OneOf("loss function", "Lovasz")]
    per_image: bool = False
    """The mean of each image's own loss, of those with a pixel that counts; else one loss of all pixels of a batch."""

    def detour(self, source: str, outputs: int) -> str | None:
        if outputs > 1 or source not in AS_PROBABILITY:
            return None
        return "logits are computed back from it"

    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        from rml_core.loss.classes import Constant, counting, probabilities, widened, within
        from rml_core.loss.extension import hinge, softmax

        source, ignored, per_image = fitted.source, self.ignored(target), self.per_image
        if output_shape[0] == 1:

            def of_one(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
                output, target = counting(output, target, source, ignored=ignored)
                x = within(output).logit() if source in AS_PROBABILITY else widened(output)
                return hinge(x, target, ignored, per_image)

            return of_one

        weights = Constant(self.weight or [1.0] * (output_shape[0] or 1))

        def of_several(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            output, target = counting(output, target, source, ignored=ignored)
            p = probabilities(output, source)
            return softmax(p, target, weights.like(p), ignored, per_image)

        return of_several
