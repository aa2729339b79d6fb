"""The challenger of a round: trained in the round's own folder, from the champion's weights where they fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import judging
from flows.champion import Round
from flows.evaluation import Stopped
from flows.phases import Outcome, execute
from flows.training import Do
from rml_core.checkpoints import native
from rml_core.config import remote
from rml_core.config.problem import Refused, RunFailed
from rml_core.run import ROOT, read
from tasks.progress import log

if TYPE_CHECKING:
    from flows.attempt import Attempt
    from flows.retraining import Planned


def train(
    plan: Planned, current: Round, champion: Path | None, do: Do, attempt: Attempt | None, goes_on: bool
) -> Outcome:
    """The challenger, trained in the round's own folder; an earlier attempt's checkpoint is gone on from.

    Raises:
        Refused: the masks have no class that the metric is of; or the run file does not fit.
        RunFailed: during work, or a signal has stopped it.
    """
    section = round_section(plan.mapping, current)
    seed = section.get("seed", 0)
    # Each round draws anew, and the same again where it is made again.
    section["seed"] = seed + current.number - 1
    if champion is not None and plan.wanted.warm_start:
        if _fits(plan, champion):
            section["checkpoints"]["load"] = str(champion)
            log.info("the challenger begins with the champion's weights")
        else:
            log.info("the champion's weights fit no layer: the challenger begins as the run file says")
    # The data are those that were looked at: where it writes, and what it begins with, is all that changed.
    checked = replace(plan.checked, run=read({ROOT: section}, plan.run.base))
    resuming = "auto" if goes_on else None
    outcome = execute(checked, _with_class(plan, do), resuming=resuming, scheduler=plan.scheduler, attempt=attempt)
    if outcome.interrupted:
        what = f"round {current.number}: training was stopped before its end: the champion is who it was"
        raise Stopped(f"{what}; what was trained is in {current.path / 'checkpoints'}")
    return outcome


def _with_class(plan: Planned, do: Do) -> Do:
    """Which classes masks have is known when they are loaded: that the metric is of none of them is said then, and not
    when everything is trained."""

    def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if name == "build network":
            setup = arguments[0]
            if setup.target is not None and setup.target.kind == "mask":
                classes = range(max(setup.network.output_shape[0], 2))
                problem = judging.problem_of_class(plan.metric, tuple(map(str, setup.mask_mapping or classes)))
                if problem is not None:
                    raise Refused([problem])
        return do(name, function, *arguments)

    return call


def round_section(section: Mapping[str, Any], current: Round) -> dict[str, Any]:
    """The run file of a round: what it writes goes below the round's folder."""
    made: dict[str, Any] = json.loads(json.dumps(section))
    data = made["data"]
    made["outfile"] = str(current.path / "out.txt")
    if data.get("test_output_path") is not None:
        data["test_output_path"] = str(current.path / "predictions")
    if data.get("hdf5_outfile") is not None:
        data["hdf5_outfile"] = str(current.path / str(data["hdf5_outfile"]).rstrip("/").rpartition("/")[2])
    if made.get("tensorboard") is not None:
        made["tensorboard"] = str(current.path / "tensorboard")
    saving = made.get("checkpoints") or {}
    made["checkpoints"] = {"keep": 1, **saving, "save": str(current.path / "checkpoints")}
    made["checkpoints"].pop("resume", None)
    return made


def _fits(plan: Planned, champion: Path) -> bool:
    from rml_core.engine.weights import problem_of

    return problem_of(champion, plan.checked.network) is None


def checkpoint_of(current: Round) -> Path:
    """The challenger: the best of its epochs where the run file says `best`, else the last."""
    folder = current.path / "checkpoints"
    best = native.best_path(folder)
    if remote.kind(best) == "file":
        return Path(str(best))
    path, _ = native.newest(folder)
    if path is None:
        raise RunFailed(f"{folder}: the challenger has left no checkpoint")
    return Path(str(path))
