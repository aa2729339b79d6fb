"""What the page of a run that has failed says: every kind of failure, and what goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.begun import Begun
from flows.page.failure import SUBMIT, FlowRun, phase_of, what_to_do
from flows.places import Places
from flows.plan import plan
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.run import read

HERE, DEPLOYED = FlowRun("the-id", None), FlowRun("the-id", SUBMIT)


@pytest.fixture
def begun(run_file: Callable[..., Path], classification: dict[str, Any]) -> Begun:
    checked = check(read(run_file(classification)))
    return Begun(checked, plan(checked), Places.of(checked))


def test_a_phase_that_fails(begun: Begun, monkeypatch: pytest.MonkeyPatch):
    folder = begun.places.checkpoints
    assert isinstance(folder, Path)
    failed = RunFailed("train epoch 2: the loss became nan")
    assert what_to_do(failed, begun, DEPLOYED) == (
        "## The run failed in the phase *train epoch 2*\n\n> the loss became nan\n\n"
        "## What to do\n\nMend what the reason says, then\n\n```sh\nprefect flow-run retry the-id\n```\n\n"
        f"starts from the beginning: there is no checkpoint in `{folder}` yet.\n\n"
        "Where the run file itself must change, submit the changed one:\n\n```sh\nrml submit FILE\n```"
    )
    monkeypatch.setattr(native, "left", lambda folder: [folder / "model_checkpoint_1.pt"])
    assert what_to_do(failed, begun, DEPLOYED) == (
        "## The run failed in the phase *train epoch 2*\n\n> the loss became nan\n\n"
        "## What to do\n\nMend what the reason says, then\n\n```sh\nprefect flow-run retry the-id\n```\n\n"
        f"goes on from the newest checkpoint in `{folder}`: what is complete is kept.\n\n"
        "Where the run file itself must change, submit the changed one, so that it goes on too:\n\n"
        "```sh\nrml submit FILE --set checkpoints.resume=auto\n```"
    )
    source = begun.checked.run.source
    assert what_to_do(failed, begun, HERE).endswith(
        f"```sh\nrml run {source} --resume auto\n```\n\n"
        f"goes on from the newest checkpoint in `{folder}`: what is complete is kept."
    )


def test_what_nobody_has_thought_of(begun: Begun):
    assert phase_of(ZeroDivisionError("by zero"), begun) == ("", "ZeroDivisionError: by zero")
    assert phase_of(RunFailed("no room"), None) == ("", "no room")
    said = what_to_do(ZeroDivisionError("by zero"), None, HERE)
    assert said == (
        "## The run failed\n\n> ZeroDivisionError: by zero\n\nThe log has the traceback.\n\n"
        "## What to do\n\nMend what the reason says, then\n\n```sh\nrml run FILE\n```\n\n"
        "starts from the beginning: `checkpoints.save` is not set, and no weights are kept."
    )


def test_what_is_refused():
    refused = Refused(
        [
            Problem("neural_network.num_epochs", "-1 does not fit", "1 or more", "take more"),
            Problem("neural_network.data.input_path", "s3://me:word@host does not exist"),
        ]
    )
    listed = (
        "## The run file was refused: 2 problems\n\nNothing has been done.\n\n"
        "- `neural_network.num_epochs`: -1 does not fit\n  - allowed: 1 or more\n  - take more\n\n"
        "- `neural_network.data.input_path`: s3://me:***@host does not exist\n\n"
        "## What to do\n\nMend what is listed, see that `rml validate FILE` finds nothing more, then\n\n"
    )
    assert what_to_do(refused, None, DEPLOYED) == f"{listed}```sh\nrml submit FILE\n```"
    assert what_to_do(refused, None, HERE) == f"{listed}```sh\nrml run FILE\n```"


def test_a_run_that_was_interrupted(begun: Begun):
    said = what_to_do(KeyboardInterrupt(), begun, DEPLOYED)
    assert said.startswith("## The run was interrupted\n\n```sh\nprefect flow-run retry the-id\n```\n\n")
