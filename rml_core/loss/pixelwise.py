"""Losses that compare element by element and take the mean: NLL, BCE, MSE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rml_core.config.names import OneOf
from rml_core.config.target import Target
from rml_core.loss.section import Fitted, Ignoring, LossSection, Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.loss.section import Objective


class NLL(Ignoring):
    """Negative log-likelihood of the target's class: - sum w_t log p_t / sum w_t."""

    target_kinds: ClassVar[tuple[str, ...]] = ("labels", "mask")
    sources: ClassVar[tuple[str, ...]] = ("log_softmax", "softmax", "probabilities", "logits")
    sources_to_say: ClassVar[tuple[str, ...]] = ("logits",)
    needs_two_outputs: ClassVar[bool] = True

    function: Annotated[str, OneOf("loss function", "NLL")]

    def build(self, fitted: Fitted, output_shape: tuple[int | None, ...], target: Target) -> Objective:
        import torch.nn.functional as F

        from rml_core.loss.classes import Constant, log_of, share, widened

        logits = fitted.source == "logits"
        log_probabilities = fitted.source == "log_softmax"

        def scores(output: Tensor) -> Tensor:
            return widened(output) if logits or log_probabilities else log_of(output)

        compare = F.cross_entropy if logits else F.nll_loss
        ignored = self.ignored(target)
        if ignored is None and self.weight is None:
            return lambda output, target: compare(scores(output), target)

        weights = None if self.weight is None else Constant(self.weight)
        # The last entry is the weight of IGNORED, which as an index means the last.
        kept = [0.0 if c == ignored else w for c, w in enumerate(self.weight or ())]
        table = Constant([*kept, 0.0])
        skip = -100 if ignored is None else ignored

        def objective(output: Tensor, target: Tensor) -> Tensor:
            wide = scores(output)
            weight = None if weights is None else weights.like(wide)
            # torch's own sum over pixels is not deterministic on a GPU.
            part = compare(wide, target, weight=weight, ignore_index=skip, reduction="none").sum()
            total = (target != skip).sum().to(wide.dtype) if weights is None else table.like(wide)[target].sum()
            return share(part, total)

        return objective


class BCE(Weighted):
    """Binary cross entropy of each output channel: - mean(t log p + (1 - t) log(1 - p)).

    One channel is the probability of the second of two classes; `weight` then has one number for either. With more
    channels class-index targets are one-hot, and `weight` has one number a channel.
    """

    function: Annotated[str, OneOf("loss function", "BCE")]

    def weights_needed(self, outputs: int, target: Target) -> int | None:
        return outputs if target.kind == "values" else max(outputs, 2)

    def build(self, fitted: Fitted, output_shape: tuple[int | None, ...], target: Target) -> Objective:
        import torch
        import torch.nn.functional as F

        from rml_core.loss.classes import HALF, Constant, cross_entropy, one_hot, share, widened

        logits, log_probabilities = fitted.source == "logits", fitted.source == "log_softmax"

        def compare(output: Tensor, expected: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
            if logits:
                return F.binary_cross_entropy_with_logits(widened(output), expected, weight, reduction=reduction)
            if output.dtype in HALF:
                # The gradient at 0 and 1 is large: it has to fit in the narrow type on the way back.
                limits = torch.finfo(output.dtype)
                bounds = (limits.min, -limits.eps) if log_probabilities else (limits.tiny, 1 - limits.eps)
                output = output.clamp(*bounds)
            p = widened(output).exp() if log_probabilities else widened(output)
            each = cross_entropy(p, expected)
            each = each if weight is None else each * weight
            return each.mean() if reduction == "mean" else each.sum()

        channels = output_shape[0] or 1
        weights = None if self.weight is None else Constant(self.weight)
        if target.kind == "values":

            def of_values(output: Tensor, target: Tensor) -> Tensor:
                expected = target.to(widened(output).dtype)
                if weights is None:
                    return compare(output, expected)
                weight = weights.channels(expected)
                total = weight.sum() * (expected.numel() // channels)
                return share(compare(output, expected, weight, "sum"), total)

            return of_values

        ignored = self.ignored(target)
        table = Constant([*(self.weight or (1.0, 1.0)), 0.0])

        def of_classes(output: Tensor, target: Tensor) -> Tensor:
            expected = one_hot(target, channels).to(widened(output).dtype)
            if weights is None and ignored is None:
                return compare(output, expected)
            if channels == 1:
                weight = table.like(expected)[target].unsqueeze(1)
                return share(compare(output, expected, weight, "sum"), weight.sum())
            weight = torch.ones_like(expected) if weights is None else weights.channels(expected).expand_as(expected)
            if ignored is not None:
                weight = weight * (target != ignored).unsqueeze(1)
            return share(compare(output, expected, weight, "sum"), weight.sum())

        return of_classes


class MSE(LossSection):
    """Mean squared error of the output as it is; class-index targets are one-hot, or 0 and 1 for one channel."""

    sources: ClassVar[tuple[str, ...]] = ()

    function: Annotated[str, OneOf("loss function", "MSE")]

    def build(self, fitted: Fitted, output_shape: tuple[int | None, ...], target: Target) -> Objective:
        import torch.nn.functional as F

        from rml_core.loss.classes import one_hot, share, widened

        channels = output_shape[0] or 1
        ignored = self.ignored(target)
        values = target.kind == "values"

        def objective(output: Tensor, target: Tensor) -> Tensor:
            wide = widened(output)
            expected = (target if values else one_hot(target, channels)).to(wide.dtype)
            if ignored is None:
                return F.mse_loss(wide, expected)
            kept = (target != ignored).unsqueeze(1).to(wide.dtype)
            return share(((wide - expected).square() * kept).sum(), kept.sum() * channels)

        return objective
