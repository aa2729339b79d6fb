"""What every learning rate scheduler says: a factor for each epoch, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod

from rml_core.config.section import Section


class SchedulerSection(Section, ABC):
    """The `lr_scheduler` of an optimizer; it moves on at the end of an epoch."""

    type: str
    verbose: bool = False
    """Log each change of the learning rate."""

    @abstractmethod
    def factor(self, epoch: int) -> float:
        """What the optimizer's `learning_rate` is multiplied by in epoch `epoch`, counted from 1. Pure: a resumed run
        asks for its epoch and has the learning rate of the run that was never interrupted."""
