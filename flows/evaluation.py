"""A checkpoint on new data, as a run of its own: its run file without what trains, on other test samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from rml_core.check import Checked, check
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused, RunFailed, shown
from rml_core.config.trust import without_base
from rml_core.data.slicing import OF_OUTFILE
from rml_core.reading import read_with_data
from rml_core.run import ROOT, Run
from rml_core.transforms import TRANSFORMS

if TYPE_CHECKING:
    from flows.phases import Outcome
    from rml_core.config.paths import AnyPath
    from rml_core.config.trust import Origin

# What a run file says of training alone, in its root and in its data section.
TRAINING = ("optimizer", "num_epochs", "early_stopping", "debug", "debug_interval", "tensorboard")
TRAINING_DATA = ("input_path", "target_path", "training_tag", "validation_split")
# Where each parameter goes in the run file.
PLACES = {
    "checkpoint": "checkpoints.load",
    "test_input_path": "data.test_input_path",
    "test_target_path": "data.test_target_path",
    "test_batch_size": "data.test_batch_size",
    "outfile": "outfile",
    "test_output_path": "data.test_output_path",
    "hdf5_outfile": "data.hdf5_outfile",
}
OUTPUTS = ("outfile", "data.test_output_path", "data.hdf5_outfile")


class Stopped(RunFailed):
    """A signal has ended it, and who had the signal lets the process go on."""


@dataclass(frozen=True)
class Given:
    """What is to be evaluated, on what, and where results go. Relative paths are against the run's `base`."""

    checkpoint: str | None = None
    test_input_path: str | None = None
    test_target_path: str | None = None
    test_batch_size: int | None = None
    outfile: str | None = None
    test_output_path: str | None = None
    hdf5_outfile: str | None = None


def evaluation(
    given: Given,
    section: Mapping[str, Any] | None = None,
    base: AnyPath | str | None = None,
    app: str | None = None,
    origin: Origin | None = None,
) -> Checked:
    """The run that evaluates what is `given`; `section`: the run file to take the place of the checkpoint's own;
    `origin`: as `read` takes it.

    What trains is left out, and so is where a run file that trains writes: that is its training's place. New test
    inputs take the place of the run file's, with targets of their own or none. Problems name the parameters.

    Raises:
        Refused: with every problem.
    """
    problems = list(contradictions(given, section))
    if base is None:
        paths = {name: getattr(given, name) for name in PLACES if isinstance(getattr(given, name), str)}
        found = (without_base(path, name, origin) for name, path in paths.items())
        problems += [problem for problem in found if problem is not None]
        if problems:
            raise Refused(problems)
    saved: Mapping[str, Any] | None = None
    if given.checkpoint is not None and section is None:
        try:
            saved = header_of(given.checkpoint, base)
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    own = section if section is not None else json.loads(saved["run"])[ROOT] if saved is not None else {}
    try:
        return check(run_of(given, own, base, origin), app or (saved["app"] if saved is not None else None))
    except Refused as refused:
        raise Refused(_as_parameters(given, refused.problems)) from None


def run_of(given: Given, section: Mapping[str, Any], base: AnyPath | str | None, origin: Origin | None = None) -> Run:
    """The run file of the evaluation, read. Raises `Refused`."""
    return read_with_data({ROOT: evaluating(section, given)}, base, origin)


def evaluating(section: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """What stands under `neural_network` in the run file of the evaluation."""
    data = section.get("data")
    if not isinstance(data, Mapping):
        # What is wrong with it is said when it is read.
        return dict(section)
    made: dict[str, Any] = {key: value for key, value in section.items() if key not in TRAINING}
    made["data"] = {key: value for key, value in data.items() if key not in TRAINING_DATA}
    if data.get("input_path") is not None:
        for place in OUTPUTS:
            _put(made, place, None)
    if given.test_input_path is not None:
        made["data"].pop("test_target_path", None)
    held = section.get("checkpoints")
    made["checkpoints"] = {"load": held.get("load")} if isinstance(held, Mapping) else {}
    for field in fields(given):
        value = getattr(given, field.name)
        if value is not None:
            _put(made, PLACES[field.name], value)
    if made["data"].get("hdf5_outfile") is None:
        for key in OF_OUTFILE:
            made["data"].pop(key, None)
    else:
        # They act in training only, and what moves pixels does not go with assembling.
        for key in ("transforms", "input_transforms", "target_transforms"):
            if isinstance(made["data"].get(key), list):
                made["data"][key] = [step for step in made["data"][key] if not _is_random(step)]
    return made


def _put(section: dict[str, Any], place: str, value: Any) -> None:
    *parents, key = place.split(".")
    for parent in parents:
        section = section[parent]
    if value is None:
        section.pop(key, None)
    else:
        section[key] = value


def _is_random(step: Any) -> bool:
    name = next(iter(step)) if isinstance(step, Mapping) and len(step) == 1 else ""
    known = {each.casefold(): kind for each, kind in TRANSFORMS.items()}
    kind = known.get(str(name).casefold())
    return kind is not None and kind.random and not kind.always


def header_of(checkpoint: str, base: AnyPath | str | None) -> Mapping[str, Any]:
    """What a run's checkpoint says of itself. Raises `Refused` where it is none, or cannot be read."""
    from pathlib import Path

    from rml_core.checkpoints.content import no_file
    from rml_core.checkpoints.torch_files import header
    from rml_core.config import remote

    try:
        path = resolve(checkpoint, base if base is not None else Path.cwd())
        there = remote.kind(path)
        if there != "file":
            raise Refused([no_file(path, "checkpoint", there)])
        saved = header(path, "checkpoint")
    except Refused as refused:
        raise Refused(replace(problem, where="checkpoint") for problem in refused.problems) from None
    except OSError as error:
        raise Refused([Problem("checkpoint", f"{checkpoint} cannot be read: {error.strerror}")]) from None
    if saved is None:
        what = f"{path} has weights alone: it does not say which network they are of"
        raise Refused([Problem("checkpoint", what, remedy="give the run file as neural_network, too")])
    return saved


def contradictions(given: Given, section: Mapping[str, Any] | None) -> list[Problem]:
    """What is wrong whatever the checkpoint and the data are."""
    problems = []
    for field in fields(given):
        value = getattr(given, field.name)
        if isinstance(value, str) and not value:
            problems.append(Problem(field.name, '"" does not fit', "a path, or left out"))
    if given.checkpoint is None and not _loads(section):
        what = "is missing: nothing says which weights are to be evaluated"
        remedy = "name a file that checkpoints.save left" + ("" if section is None else ", here or as checkpoints.load")
        problems.append(Problem("checkpoint", what, remedy=remedy))
    data = section.get("data") if section is not None else None
    has_inputs = isinstance(data, Mapping) and data.get("test_input_path") is not None
    if given.test_input_path is None and (section is None or (isinstance(data, Mapping) and not has_inputs)):
        what = "is missing: there is nothing to evaluate on"
        problems.append(Problem("test_input_path", what, remedy="name a file or a folder with test samples"))
    if given.test_target_path is not None and given.test_input_path is None:
        what = f"{shown(given.test_target_path)} stands without test_input_path, whose targets it has"
        problems.append(Problem("test_target_path", what, remedy="give both, or neither"))
    return problems


def _loads(section: Mapping[str, Any] | None) -> bool:
    held = section.get("checkpoints") if section is not None else None
    return isinstance(held, Mapping) and held.get("load") is not None


def _as_parameters(given: Given, problems: tuple[Problem, ...]) -> list[Problem]:
    """Each problem at the parameter that brought it in."""
    places = {
        f"{ROOT}.{PLACES[field.name]}": field.name for field in fields(given) if getattr(given, field.name) is not None
    }
    return [replace(problem, where=places.get(problem.where, problem.where)) for problem in problems]


def figures_of(outcome: Outcome) -> dict[str, Any]:
    """What an evaluation has measured: `loss`, `accuracy`, and the figures of its kind.

    Raises:
        Stopped: it was stopped before its end.
    """
    rows = [row for row in outcome.history if "test_loss" in row]
    if not rows:
        raise Stopped("the evaluation was stopped before its end")
    row = {key: value for key, value in rows[-1].items() if key not in ("epoch", "test_samples_per_s")}
    return {"loss": row.pop("test_loss"), **row}
