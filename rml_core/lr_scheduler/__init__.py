"""The `lr_scheduler` section: the learning rate of each epoch."""

from rml_core.lr_scheduler.schedules import Exponential, MultiStep, Step, Warmup
from rml_core.lr_scheduler.section import SchedulerSection

SCHEDULERS: dict[str, type[SchedulerSection]] = {
    "Step": Step,
    "MultiStep": MultiStep,
    "Exponential": Exponential,
    "Warmup": Warmup,
}

__all__ = ["SCHEDULERS", "SchedulerSection"]
