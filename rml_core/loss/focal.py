"""Focal loss: Lin, Goyal, Girshick, He and Dollar (arXiv:1708.02002)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeGuard

from pydantic import Field, field_validator

from rml_core.config.names import OneOf, wrong
from rml_core.config.problem import Problem, shown
from rml_core.config.section import Floats
from rml_core.config.target import Target
from rml_core.loss.section import Elementwise, Fitted, Shape, miscounted, weighing

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.loss.section import Objective


ALPHA = "a number from 0 to 1, or a list with one number a class, none below 0"


class Focal(Elementwise):
    """Cross entropy that counts less what is already right: - alpha (1 - p_t)^gamma log p_t, and the mean.

    p_t is what the network gives the class that is there, and the mean is over pixels. One output, and several that
    end in sigmoid, say yes or no each: then p_t is p or 1 - p, and the mean is over outputs too.
    """

    of_classes: ClassVar[bool] = True

    function: Annotated[str, OneOf("loss function", "Focal")]
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """How much less; 0 is cross entropy."""
    alpha: Annotated[float, Field(ge=0, le=1)] | Floats | None = Field(None, examples=[0.25])
    """A factor that no mean divides by: a number for the positives, and 1 less it for the negatives (class 0); or a
    list, one number a class. With several outputs that end in sigmoid a list is of the positives, and the negatives
    have 1."""

    @field_validator("alpha", mode="before")
    @classmethod
    def _is_a_number_or_a_list(cls, alpha: object) -> object:
        if alpha is None or (_is_number(alpha) and 0 <= alpha <= 1):
            return alpha
        if isinstance(alpha, list | tuple) and alpha and all(_is_number(each) and each >= 0 for each in alpha):
            return weighing(tuple(alpha))
        raise wrong(f"{shown(alpha)} does not fit", ALPHA)

    def unfit(self, output_shape: Shape, target: Target, where: str) -> Iterator[Problem]:
        yield from super().unfit(output_shape, target, where)
        if isinstance(self.alpha, tuple) and output_shape[0] is not None:
            yield from miscounted(self.alpha, max(output_shape[0], 2), output_shape, f"{where}.alpha")

    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        channels = output_shape[0] or 1
        if channels == 1 or fitted.source == "sigmoid":
            return self._yes_or_no(fitted.source == "logits", channels, target)
        return self._one_of(fitted.source, channels, target)

    def _one_of(self, source: str, channels: int, target: Target) -> Objective:
        """Of outputs that are one distribution."""
        import torch
        import torch.nn.functional as F

        from rml_core.loss.classes import ClassTable, Constant, counting, log_of, share, widened
        from rml_core.loss.likelihood import log_likelihood

        gamma, ignored = self.gamma, self.ignored(target)
        skip = -100 if ignored is None else ignored
        weight = self.weight or (1.0,) * channels
        alpha = self.alpha
        if alpha is None:
            alpha = (1.0,) * channels
        elif not isinstance(alpha, tuple):
            alpha = (1 - alpha, *(alpha,) * (channels - 1))

        def log_probabilities(output: Tensor) -> Tensor:
            if source == "logits":
                return widened(output).log_softmax(1)
            return widened(output) if source == "log_softmax" else log_of(output)

        def of_target(output: Tensor, target: Tensor) -> Tensor:
            """- log p of the target's class (N, *spatial); 0 where it is ignored."""
            if source == "logits":
                return -log_likelihood(output, target, ignored)
            return F.nll_loss(log_probabilities(output), target, ignore_index=skip, reduction="none")

        def focused(entropy: Tensor) -> Tensor:
            # Where p is 1 the power's gradient is not finite for gamma < 1: below the floor there is none.
            rest = -torch.expm1(-entropy)
            return rest.clamp(min=torch.finfo(rest.dtype).tiny) ** gamma * entropy if gamma else entropy

        if target.kind == "values":
            factors, weights = Constant([a * w for a, w in zip(alpha, weight, strict=True)]), Constant(weight)

            def of_values(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
                output, target = counting(output, target, source, kept)
                log_p = log_probabilities(output)
                t = target.to(log_p.dtype)
                if kept is not None:
                    t = t * kept.unsqueeze(1)
                each = t * focused(-log_p) * factors.channels(log_p)
                if self.weight is not None:
                    return share(each.sum(), (t * weights.channels(log_p)).sum())
                if kept is not None:
                    return share(each.sum(), kept.sum().to(each.dtype))
                return each.sum() / (each.numel() // channels)

            return of_values

        factor = ClassTable([a * w for a, w in zip(alpha, weight, strict=True)], ignored)
        weigh = ClassTable(weight, ignored)
        even = self.weight is None and self.alpha is None

        def of_classes(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            each = focused(of_target(output, target))
            if even:
                return share(each.sum(), (target != skip).sum().to(each.dtype))
            return share((each * factor.of(target, each)).sum(), weigh.of(target, each).sum())

        return of_classes

    def _yes_or_no(self, logits: bool, channels: int, target: Target) -> Objective:
        """Of outputs that are each a probability, or the one's logits."""
        import torch
        import torch.nn.functional as F

        from rml_core.loss.classes import Constant, ElementMean, counting, one_hot, widened, within

        gamma, values = self.gamma, target.kind == "values"
        ignored, source = None if values else self.ignored(target), "logits" if logits else "probabilities"
        mean = ElementMean(self.weight, ignored, channels, values)
        if self.alpha is None:
            no, yes = Constant([1.0]), Constant([1.0])
        elif not isinstance(self.alpha, tuple):
            no, yes = Constant([1 - self.alpha]), Constant([self.alpha])
        elif channels == 1:
            no, yes = Constant(self.alpha[:1]), Constant(self.alpha[1:])
        else:
            no, yes = Constant([1.0]), Constant(self.alpha)

        def of_logit(x: Tensor) -> Tensor:
            log_p = F.logsigmoid(x)
            return -(gamma * (log_p - x)).exp() * log_p if gamma else -log_p

        def of_probability(p: Tensor) -> Tensor:
            return (1 - p) ** gamma * -p.log() if gamma else -p.log()

        def objective(output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
            output, target = counting(output, target, source, kept, ignored)
            x = widened(output) if logits else within(output)
            each, opposite = (of_logit, -x) if logits else (of_probability, 1 - x)
            if values:
                t = target.to(x.dtype)
                focal = t * yes.channels(x) * each(x) + (1 - t) * no.channels(x) * each(opposite)
            else:
                expected = one_hot(target, channels)
                focal = each(torch.where(expected, x, opposite))
                if self.alpha is not None:
                    focal = focal * torch.where(expected, yes.channels(x), no.channels(x))
            return mean(focal, target, kept)

        return objective


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
