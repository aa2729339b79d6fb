"""Checks across sections, and against files and shapes: every problem, once, before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rml_core import apps
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused
from rml_core.config.target import Target
from rml_core.data.survey import Survey, survey
from rml_core.layers.graph import Network, infer
from rml_core.loss.fit import fit
from rml_core.loss.section import Fitted
from rml_core.run import ROOT, Run

Result = TypeVar("Result")


@dataclass(frozen=True)
class Checked:
    """A run of which everything that can be known without work is known to be right.

    `training` and `test` are None where the run has no such phase, or where the data was left alone. `target` is
    None for inference alone.
    """

    run: Run
    app: str
    training: Survey | None
    test: Survey | None
    network: Network
    target: Target | None
    fitted: Fitted | None
    warnings: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of labels, in the order of their indices."""
        for each in (self.training, self.test):
            if each is not None and each.classes is not None:
                return each.classes
        return ()

    def transforms_first(self, role: str) -> bool:
        """Preloaded samples of `role` are kept as the leading deterministic transforms leave them."""
        return self.run.file.data.preload and self.run.file.data.has_leading_transforms


def check(run: Run, app: str | None = None, skip_data: bool = False) -> Checked:
    """Hold the sections of `run` against each other, against the data files and against the network's shapes.

    Reads headers, not data. `skip_data` leaves the data files alone.

    Raises:
        Refused: with every problem.
    """
    problems: list[Problem] = []

    def attempt(step: Callable[[], Result]) -> Result | None:
        try:
            return step()
        except Refused as refused:
            problems.extend(refused.problems)
            return None

    file = run.file
    name = attempt(lambda: apps.named(app))
    if name is not None:
        problems += apps.APPS[name].problems(file)
    problems += _files(run)
    training = test = None
    if not skip_data:
        training = attempt(lambda: survey(file.data, "training", run.base))
        known = attempt(lambda: _known_classes(run)) if file.data.input_path is None else None
        if training is not None:
            known = training.classes
        test = attempt(lambda: survey(file.data, "test", run.base, known))
    surveys = [each for each in (training, test) if each is not None]
    network = target = fitted = None
    if surveys or skip_data:
        shape = surveys[0].sample_shape if surveys else None
        network = attempt(lambda: infer(run.graph, shape))
    if network is not None:
        for other in surveys[1:]:
            if other.sample_shape != surveys[0].sample_shape:
                attempt(lambda other=other: infer(run.graph, other.sample_shape))  # type: ignore[misc]
        for each in surveys:
            if each.target is None:
                continue
            target = target or each.target
            if file.loss is not None:
                found = attempt(
                    lambda each=each: fit(file.loss, network.output_shape, each.target, network.last_activation)  # type: ignore
                )
                fitted = fitted or found
            elif each.role == "test":
                what = "is missing: test targets need one"
                remedy = f"add a loss, or leave {ROOT}.data.test_target_path out"
                problems.append(Problem(f"{ROOT}.loss", what, remedy=remedy))
    if training is not None and training.target is None:
        what = "is missing: training needs targets"
        problems.append(Problem(f"{ROOT}.data.target_path", what, remedy="give target_path and target_type"))
    if problems:
        raise Refused(dict.fromkeys(problems))
    assert name is not None
    assert network is not None
    warnings = [warning for each in surveys for warning in each.warnings]
    warnings += fitted.warnings if fitted is not None else ()
    return Checked(run, name, training, test, network, target, fitted, tuple(warnings))


def _files(run: Run) -> list[Problem]:
    """Files that the run file names outside of the data."""
    section = run.file.checkpoints
    if section is None or section.load is None or "://" in section.load:
        return []
    path = resolve(section.load, run.base)
    if path.is_file():
        return []
    what = f"{path} is a folder" if path.is_dir() else f"{path} does not exist"
    return [Problem(f"{ROOT}.checkpoints.load", what, "a file with weights")]


def _known_classes(run: Run) -> tuple[str, ...] | None:
    """The class names that the loaded checkpoint was trained with, where a run only evaluates."""
    section = run.file.checkpoints
    if section is None or section.load is None or run.file.data.targets is None:
        return None
    path = resolve(section.load, run.base)
    if not path.is_file() or run.file.data.targets.of_files:
        return None
    from rml_core.checkpoints import torch_files

    saved = torch_files.header(path, f"{ROOT}.checkpoints.load")
    return tuple(saved["classes"]) or None if saved is not None else None
