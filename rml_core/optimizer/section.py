"""What every optimizer has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rml_core.config.names import Tagged
from rml_core.config.section import Section
from rml_core.lr_scheduler import SCHEDULERS, SchedulerSection

if TYPE_CHECKING:
    import torch


class OptimizerSection(Section, ABC):
    """The `optimizer` section of a first-order optimizer."""

    type: str
    learning_rate: float = Field(0.01, gt=0, examples=[0.001])
    """The learning rate, before the scheduler's factor."""
    lr_scheduler: Annotated[SchedulerSection, Tagged("scheduler", "type", SCHEDULERS)] | None = None
    """Changes the learning rate from epoch to epoch."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down so that their common L2 norm is not above this."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """The gradients of so many batches make one update."""

    def learning_rate_of(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.learning_rate * (self.lr_scheduler.factor(epoch) if self.lr_scheduler else 1.0)

    def change_before(self, epoch: int) -> str:
        """What a verbose scheduler says as `epoch` begins; empty where the rate stays."""
        if self.lr_scheduler is None or not self.lr_scheduler.verbose or epoch == 1:
            return ""
        before, now = self.learning_rate_of(epoch - 1), self.learning_rate_of(epoch)
        return f"epoch {epoch}: learning rate {before:g} -> {now:g}" if now != before else ""

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        """The optimizer of those parameters that are trainable, at the base learning rate. `scaled`: the loss is
        scaled, so that gradients may overflow and updates be left out.

        Parameters lie on their device already: which kernels there are depends on it. Raises `Refused` where no
        parameter is trainable.
        """
