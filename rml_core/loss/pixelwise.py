"""Losses that compare element by element and take the mean: NLL, BCE, MSE. Twice differentiable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rml_core.config.names import OneOf
from rml_core.config.target import Target
from rml_core.loss.section import Elementwise, Fitted, Shape, Weighted

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.loss.section import Objective


class NLL(Weighted):
    """Negative log-likelihood of the target's class: - sum w_t log p_t / sum w_t."""

    target_kinds: ClassVar[tuple[str, ...]] = ("labels", "mask")
    sources: ClassVar[tuple[str, ...]] = ("log_softmax", "softmax", "probabilities", "logits")
    sources_to_say: ClassVar[tuple[str, ...]] = ("logits",)
    needs_two_outputs: ClassVar[bool] = True

    function: Annotated[str, OneOf("loss function", "NLL")]

    def detour(self, source: str, outputs: int) -> str | None:
        if source not in ("softmax", "probabilities"):
            return None
        return "the log is taken"

    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        import torch.nn.functional as F

        from rml_core.loss.classes import ClassTable, Constant, counting, log_of, share, widened

        logits = fitted.source == "logits"
        log_probabilities = fitted.source == "log_softmax"

        def scores(output: Tensor) -> Tensor:
            return widened(output) if logits or log_probabilities else log_of(output)

        compare = F.cross_entropy if logits else F.nll_loss
        ignored = self.ignored(target)
        if ignored is None and self.weight is None:
            return lambda output, target, kept=None: compare(scores(output), target)

        weights = None if self.weight is None else Constant(self.weight)
        table = ClassTable(self.weight or (), ignored)
        skip = -100 if ignored is None else ignored

        def objective(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            wide = scores(counting(output, target, "logits", ignored=ignored)[0] if logits else output)
            weight = None if weights is None else weights.like(wide)
            # torch's own sum over pixels is not deterministic on a GPU.
            part = compare(wide, target, weight=weight, ignore_index=skip, reduction="none").sum()
            total = (target != skip).sum().to(wide.dtype) if weights is None else table.of(target, wide).sum()
            return share(part, total)

        return objective


class BCE(Elementwise):
    """Binary cross entropy of each output channel: - mean(t log p + (1 - t) log(1 - p)).

    One channel is the probability of the second of two classes; `weight` then has one number for either. With more
    channels class-index targets are one-hot, and `weight` has one number a channel.
    """

    function: Annotated[str, OneOf("loss function", "BCE")]

    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        import torch
        import torch.nn.functional as F

        from rml_core.loss.classes import HALF, ElementMean, counting, cross_entropy, one_hot, widened, within

        logits, log_probabilities = fitted.source == "logits", fitted.source == "log_softmax"

        def probability(output: Tensor) -> Tensor:
            if log_probabilities:
                if output.dtype in HALF:
                    limits = torch.finfo(output.dtype)
                    output = output.clamp(limits.min, -limits.eps)
                return widened(output).exp()
            return within(output) if output.dtype in HALF else output

        channels, values = output_shape[0] or 1, target.kind == "values"
        ignored = None if values else self.ignored(target)
        mean = ElementMean(self.weight, ignored, channels, values)

        def objective(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            output, target = counting(output, target, fitted.source, kept, ignored)
            p = widened(output) if logits else probability(output)
            expected = (target if values else one_hot(target, channels)).to(p.dtype)
            if logits:
                return mean(F.binary_cross_entropy_with_logits(p, expected, reduction="none"), target, kept)
            return mean(cross_entropy(p, expected), target, kept)

        return objective


class MSE(Elementwise):
    """Mean squared error of the output as it is; class-index targets are one-hot, or 0 and 1 for one channel."""

    sources: ClassVar[tuple[str, ...]] = ()

    function: Annotated[str, OneOf("loss function", "MSE")]

    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        from rml_core.loss.classes import ElementMean, counting, one_hot, widened

        channels, values = output_shape[0] or 1, target.kind == "values"
        ignored = None if values else self.ignored(target)
        mean = ElementMean(self.weight, ignored, channels, values)

        def objective(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            output, target = counting(output, target, fitted.source, kept, ignored)
            wide = widened(output)
            expected = (target if values else one_hot(target, channels)).to(wide.dtype)
            return mean((wide - expected).square(), target, kept)

        return objective
