from typing import Annotated

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rml_core.config.names import Tagged
from rml_core.config.problem import Refused
from rml_core.config.section import Section, parse
from rml_core.lr_scheduler import SCHEDULERS, SchedulerSection


class Holder(Section):
    lr_scheduler: Annotated[SchedulerSection, Tagged("scheduler", "type", SCHEDULERS)]


def schedule(**keys) -> SchedulerSection:
    return parse(Holder, {"lr_scheduler": keys}, "o").lr_scheduler


def torchs_factors(make, epochs=50) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    factors = []
    for _ in range(epochs):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


SAME_AS_TORCH = [
    ({"type": "Step", "gamma": 0.1, "step_size": 2}, lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.1)),
    ({"type": "step", "gamma": 0.7, "step_size": 1}, lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.7)),
    ({"type": "Step", "gamma": 1.5, "step_size": 7}, lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 1.5)),
    (
        {"type": "MultiStep", "gamma": 0.1, "milestones": [2, 5, 20, 50]},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5, 20, 50], 0.1),
    ),
    (
        {"type": "MULTISTEP", "gamma": 0.5, "milestones": [30, 1, 7, 7]},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [30, 1, 7, 7], 0.5),
    ),
    ({"type": "Exponential", "gamma": 0.93}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.93)),
    (
        {"type": "Warmup", "num_epochs": 5, "start_factor": 0.2},
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.2, 1.0, 5),
    ),
    (
        {"type": "Warmup", "num_epochs": 33, "start_factor": 0.01},
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.01, 1.0, 33),
    ),
]


@pytest.mark.parametrize(
    ("keys", "make"), SAME_AS_TORCH, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_fifty_epochs_are_torchs(keys, make):
    section = schedule(**keys)
    assert [section.factor(epoch) for epoch in range(1, 51)] == pytest.approx(torchs_factors(make), rel=1e-12)


@given(st.integers(1, 60), st.floats(0, 0.99), st.integers(1, 200))
def test_warmup_is_the_formula(n, start, epoch):
    expected = start + (1 - start) * min(epoch - 1, n) / n
    assert schedule(type="Warmup", num_epochs=n, start_factor=start).factor(epoch) == pytest.approx(expected, rel=1e-12)


def test_a_milestone_counts_from_the_epoch_after_it():
    section = schedule(type="MultiStep", gamma=0.5, milestones=[2])
    assert [section.factor(epoch) for epoch in (1, 2, 3, 4)] == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"type": "Step", "gamma": 0.1}, "o.lr_scheduler.step_size: is missing"),
        (
            {"type": "Step", "gamma": 0, "step_size": 1},
            "o.lr_scheduler.gamma: 0 does not fit\n    allowed: greater than 0",
        ),
        (
            {"type": "MultiStep", "gamma": 0.1, "milestones": [3, 0]},
            "o.lr_scheduler.milestones[1]: 0 does not fit\n    allowed: greater than or equal to 1",
        ),
        (
            {"type": "Warmup", "num_epochs": 5, "start_factor": 1},
            "o.lr_scheduler.start_factor: 1 does not fit\n    allowed: less than 1",
        ),
        (
            {"type": "Exponental", "gamma": 0.1},
            'o.lr_scheduler.type: unknown scheduler "Exponental"\n'
            "    allowed: Step, MultiStep, Exponential, Warmup\n"
            '    did you mean "Exponential"?',
        ),
    ],
)
def test_what_is_refused(keys, message):
    with pytest.raises(Refused) as refused:
        schedule(**keys)
    assert str(refused.value) == message


def test_the_schema_offers_every_scheduler():
    published = str(TypeAdapter(Holder).json_schema())
    assert all(name in published for name in SCHEDULERS)
