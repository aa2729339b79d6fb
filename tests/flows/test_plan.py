"""The phases of a plan: their order and counts, for every length, interval and position."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.plan import MOST_EPOCH_PHASES, Plan, plan
from rml_core.check import Checked, check
from rml_core.checkpoints import Checkpoints
from rml_core.run import read

Make = Callable[..., Checked]

EACH = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LENGTHS = st.one_of(st.integers(1, 12), st.integers(90, 110), st.integers(1, 2000))


@pytest.fixture
def a_run(classification: dict[str, Any]) -> Make:
    """Makes a checked run of `epochs` epochs that saves every `interval` ones, or never."""
    kept: dict[tuple[bool, bool], Checked] = {}

    def make(epochs: int, interval: int | None, trains: bool = True, evaluates: bool = True) -> Checked:
        if (trains, evaluates) not in kept:
            mapping = copy.deepcopy(classification)
            data = mapping["neural_network"]["data"]
            del data["test_output_path"]
            if not trains:
                del data["input_path"]
            if not evaluates:
                del data["test_input_path"]
            kept[trains, evaluates] = check(read(mapping))
        one = kept[trains, evaluates]
        checkpoints = Checkpoints(save="kept", interval=interval) if interval is not None else None
        file = one.run.file.model_copy(update={"num_epochs": epochs, "checkpoints": checkpoints})
        return replace(one, run=replace(one.run, file=file))

    return make


def names(planned: Plan) -> list[str]:
    return [phase.name for phase in planned.phases]


def epochs_of(planned: Plan) -> list[int]:
    """The epochs that are trained, in the order of the plan."""
    return [epoch.number for group in planned.groups for epoch in group.epochs if epoch.train is not None]


@given(epochs=LENGTHS, interval=st.none() | st.integers(1, 30), evaluates=st.booleans())
@EACH
def test_a_new_run(a_run: Make, epochs: int, interval: int | None, evaluates: bool):
    planned = plan(a_run(epochs, interval, evaluates=evaluates))
    assert epochs_of(planned) == list(range(1, epochs + 1))
    saved = [epoch.number for group in planned.groups for epoch in group.epochs if epoch.checkpoint is not None]
    wanted = set(range(interval, epochs + 1, interval)) | {epochs} if interval is not None else set()
    assert saved == sorted(wanted)
    evaluated = [epoch.number for group in planned.groups for epoch in group.epochs if epoch.evaluate is not None]
    assert evaluated == (list(range(1, epochs + 1)) if evaluates else [])

    before = names(planned)[: 3 if evaluates else 2]
    assert before == (
        ["load training", "load test", "build network"] if evaluates else ["load training", "build network"]
    )
    assert len(set(names(planned))) == len(names(planned))
    if epochs <= MOST_EPOCH_PHASES:
        expected = []
        for number in range(1, epochs + 1):
            expected.append(("train", f"train epoch {number}"))
            if number in wanted:
                expected.append(("checkpoint", f"checkpoint epoch {number}"))
            if evaluates:
                expected.append(("evaluate", f"evaluate epoch {number}"))
        assert [(phase.kind, phase.name) for phase in planned.phases[len(before) :]] == expected
    else:
        assert len(planned.phases) - len(before) <= MOST_EPOCH_PHASES
        assert {phase.kind for phase in planned.phases[len(before) :]} == {"train"}


@given(
    epochs=LENGTHS,
    interval=st.integers(1, 30),
    evaluates=st.booleans(),
    position=st.tuples(st.floats(0, 1), st.booleans()),
)
@EACH
def test_a_resumed_run_does_what_is_left(
    a_run: Make, epochs: int, interval: int, evaluates: bool, position: tuple[float, bool]
):
    checked = a_run(epochs, interval, evaluates=evaluates)
    done, within = round(position[0] * epochs), position[1]
    if done == 0:
        return
    planned = plan(checked, done, 3 if within else 0)
    assert epochs_of(planned) == list(range(done if within else done + 1, epochs + 1))
    loaded = 2 if evaluates else 1
    first = names(planned)[loaded + 1 : loaded + 2]
    if evaluates and not within:
        # A run may have been killed between the checkpoint of an epoch and its evaluation.
        assert first == [f"evaluate epoch {done}"]
    elif not within and done == epochs:
        assert first == []
    # The groups are those of the run that was not interrupted, but for the first.
    whole = {phase.name for phase in plan(checked).phases}
    left = names(planned)[loaded + 1 :]
    assert set(left[2:]) <= whole


@given(epochs=st.integers(MOST_EPOCH_PHASES + 1, 3000))
@EACH
def test_groups_are_named_by_their_epochs(a_run: Make, epochs: int):
    planned = plan(a_run(epochs, None))
    size = -(-epochs // MOST_EPOCH_PHASES)
    for group in planned.groups:
        first, last = group.epochs[0].number, group.epochs[-1].number
        assert len(group.epochs) == size or last == epochs
        assert group.phase is not None
        assert group.phase.name == (f"train epochs {first}-{last}" if first < last else f"train epoch {first}")


def test_a_run_that_only_evaluates_has_one_pass(a_run: Make):
    planned = plan(a_run(500, 1, trains=False))
    assert names(planned) == ["load test", "build network", "evaluate epoch 1"]
    assert (planned.samples, planned.batches) == ({"train": 0, "test": 10}, {"train": 0, "test": 2})


@given(sizes=st.tuples(st.integers(1, 30), st.integers(1, 30)))
@EACH
def test_the_last_smaller_batch_counts(a_run: Make, sizes: tuple[int, int]):
    checked = a_run(1, None)
    data = checked.run.file.data.model_copy(update={"batch_size": sizes[0], "test_batch_size": sizes[1]})
    file = checked.run.file.model_copy(update={"data": data})
    planned = plan(replace(checked, run=replace(checked.run, file=file)))
    assert planned.batches == {
        "train": len(range(0, 24, sizes[0])),
        "test": len(range(0, 10, sizes[1])),
    }


def test_what_json_and_text_say_are_the_plans_own_phases(a_run: Make):
    planned = plan(a_run(40, 1))
    assert [phase["name"] for phase in planned.as_json()["phases"]] == names(planned)
    text = planned.as_text().splitlines()
    assert text[6:18] == [f"  {name}" for name in names(planned)[:12]]
    assert text[18] == f"  ... {len(names(planned)) - 20} more ..."
    assert text[19:] == [f"  {name}" for name in names(planned)[-8:]]


def test_planning_reads_no_pixels(a_run: Make, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    decoded: list[str] = []
    monkeypatch.setattr("rml_core.data.images.decode", lambda path, *_: decoded.append(path))
    plan(a_run(1, None))
    assert decoded == []
