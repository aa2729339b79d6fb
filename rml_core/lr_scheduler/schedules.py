"""The schedules: torch.optim.lr_scheduler's StepLR, MultiStepLR, ExponentialLR and LinearLR as closed formulas."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated

from pydantic import Field

from rml_core.config.names import OneOf
from rml_core.config.section import FromList
from rml_core.lr_scheduler.section import SchedulerSection

Gamma = Annotated[float, Field(gt=0)]
Epoch = Annotated[int, Field(ge=1)]


class Step(SchedulerSection):
    """The learning rate is multiplied by `gamma` after every `step_size` epochs."""

    type: Annotated[str, OneOf("scheduler", "Step")]
    gamma: Gamma = Field(examples=[0.1])
    """What the learning rate is multiplied by."""
    step_size: Epoch = Field(examples=[10])
    """How many epochs lie between two changes."""

    def factor(self, epoch: int) -> float:
        return self.gamma ** ((epoch - 1) // self.step_size)


class MultiStep(SchedulerSection):
    """The learning rate is multiplied by `gamma` after each of the epochs in `milestones`."""

    type: Annotated[str, OneOf("scheduler", "MultiStep")]
    gamma: Gamma = Field(examples=[0.1])
    """What the learning rate is multiplied by."""
    milestones: Annotated[tuple[Epoch, ...], FromList] = Field(examples=[[10, 20]])
    """Epochs at whose end the learning rate changes: milestone m counts from epoch m + 1 on."""

    def factor(self, epoch: int) -> float:
        return self.gamma ** bisect_left(sorted(self.milestones), epoch)


class Exponential(SchedulerSection):
    """The learning rate is multiplied by `gamma` after every epoch."""

    type: Annotated[str, OneOf("scheduler", "Exponential")]
    gamma: Gamma = Field(examples=[0.95])
    """What the learning rate is multiplied by."""

    def factor(self, epoch: int) -> float:
        return self.gamma ** (epoch - 1)


class Warmup(SchedulerSection):
    """The learning rate grows linearly from `start_factor` times its value to all of it."""

    type: Annotated[str, OneOf("scheduler", "Warmup")]
    num_epochs: Epoch = Field(examples=[5])
    """After so many epochs the learning rate has its full value."""
    start_factor: float = Field(ge=0, lt=1, examples=[0.1])
    """The fraction of the learning rate that the first epoch runs at."""

    def factor(self, epoch: int) -> float:
        done = min(epoch - 1, self.num_epochs) / self.num_epochs
        return self.start_factor + (1 - self.start_factor) * done
