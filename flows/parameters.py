"""The parameters of the flow behind each deployment: their names, which of them are paths, and what makes them right.

Prefect is not imported here: a submission is checked before a server is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rml_core.apps import named
from rml_core.check import Collected, check, check_resume, check_without_data
from rml_core.config.paths import is_url
from rml_core.config.problem import Problem, Refused, collect, shown
from rml_core.config.section import parse
from rml_core.config.trust import Origin, Reading, here, needs_worker, without_base
from rml_core.reading import read_with_data
from rml_core.run import ROOT, RunFile, read, read_json, root_of
from tasks.cluster import check_address
from tasks.ranks import refuse_several

SENT = Origin.SENT
RUN_FILE = "run_file"


@dataclass(frozen=True)
class Asked:
    """What is submitted, its paths as they are sent. `base`: what relative ones are against; `source`: the file it
    stands in; `with_data`: the data files are seen from here."""

    parameters: Mapping[str, Any]
    base: Any
    source: Any
    with_data: bool
    scheduled: bool = False

    def of(self, *names: str) -> dict[str, Any]:
        """Those of the parameters that are given."""
        return {name: self.parameters[name] for name in names if self.parameters.get(name) is not None}

    @property
    def app(self) -> str | None:
        given = self.parameters.get("app")
        return given if isinstance(given, str) else None


@dataclass(frozen=True)
class Kind:
    """A flow. `check` gives warnings, and raises `Refused`; `paths` are those beside the run file's own."""

    names: tuple[str, ...]
    paths: tuple[str, ...]
    check: Callable[[Asked], tuple[str, ...]]
    needs_file: bool = False


def _is_unseen(section: Any, base: Any) -> bool:
    """The network stands in a file that lies where a variable of the worker says."""
    layers = section.get("layers") if isinstance(section, Mapping) else None
    if not isinstance(layers, str):
        return False
    is_relative = not (is_url(layers) or os.path.isabs(os.path.expanduser(layers)))
    return needs_worker(layers) or (is_relative and needs_worker(str(base)))


def _without_network(section: Any, base: Any) -> None:
    """All of a run file that can be checked without its network. Raises `Refused`."""
    parse(RunFile, root_of({ROOT: section}), ROOT, Reading(base, SENT))


def _train(asked: Asked) -> tuple[str, ...]:
    if _is_unseen(asked.parameters[ROOT], asked.base):
        collect(lambda: _without_network(asked.parameters[ROOT], asked.base), lambda: named(asked.app))
        return ()
    mapping = {ROOT: asked.parameters[ROOT]}
    if asked.with_data:
        run = replace(read_with_data(mapping, asked.base, SENT), source=asked.source)
        return check(run, asked.app).warnings
    check_without_data(read(mapping, asked.base, SENT), asked.app)
    return ()


def _evaluate(asked: Asked) -> tuple[str, ...]:
    from flows.evaluation import PLACES, Given, contradictions, evaluating, evaluation

    section = asked.parameters.get(ROOT)
    given = Given(**asked.of(*PLACES))
    is_section = isinstance(section, Mapping)
    if asked.with_data and (section is None or is_section):
        return evaluation(given, section, asked.base, asked.app, SENT).warnings
    collected = Collected()
    collected.problems += contradictions(given, section) if section is None or is_section else []
    if section is not None and _is_unseen(section, asked.base):
        collected.of(_without_network, evaluating(section, given), asked.base)
    elif section is not None:
        run = collected.of(read, {ROOT: evaluating(section, given) if is_section else section}, asked.base, SENT)
        if run is not None:
            collected.of(check_without_data, run, asked.app)
    collected.end()
    return ()


def _retrain(asked: Asked) -> tuple[str, ...]:
    from flows.retraining import Retraining

    collected = Collected()
    wanted = collected.of(parse, Retraining, asked.of(*Retraining.model_fields), "")
    file, section = asked.parameters.get(RUN_FILE), asked.parameters.get(ROOT)
    warnings: tuple[str, ...] = ()
    if (file is None) == (section is None):
        if file is not None or not asked.scheduled:
            what = "is missing" if file is None else "stands beside neural_network, and both are the run file"
            remedy = "give the file's path, or its content as neural_network"
            collected.problems.append(Problem(RUN_FILE, what, remedy=remedy))
    else:
        warnings = collected.of(_round, asked, wanted or Retraining(), file, section) or ()
    collected.end()
    return warnings


def _round(asked: Asked, wanted: Any, file: Any, section: Any) -> tuple[str, ...]:
    from flows.retraining import planned, planned_without_data
    from rml_core.config.paths import folder_of

    if file is not None and not (asked.with_data and isinstance(file, str)):
        return ()
    mapping = {ROOT: section} if file is None else read_json(file)
    base = asked.base if file is None or asked.of("base") else folder_of(file)
    if file is None and _is_unseen(section, base):
        _without_network(section, base)
        return ()
    if asked.with_data:
        return planned(wanted, mapping, base, asked.app, None, SENT).checked.warnings
    planned_without_data(wanted, mapping, base, asked.app, SENT)
    return ()


def refuse_base(base: Any, origin: Origin | None = None) -> None:
    """Raises `Refused` where a worker has no such folder: a relative one would be in a folder that goes with the run.
    `origin`: as `without_base` takes it."""
    if not isinstance(base, str):
        return
    found = problem_of_nul(base, "base") or Reading(None, origin or here()).problem(base, "base")
    if found is None and (found := without_base(base, "base", origin)) is not None:
        found = replace(found, remedy="give it as an absolute path, or a URL")
    if found is not None:
        raise Refused([found])


def problem_of_nul(path: str, where: str) -> Problem | None:
    """Why no file can have the name `path`; None: one can."""
    return Problem(where, f"{shown(path)} has a NUL character", remedy="take it out") if "\0" in path else None


def problems_of(asked: Asked, kind: Kind) -> list[Problem]:
    """What is wrong with the parameters beside the run file, each by itself."""
    problems = []
    for name, given in asked.parameters.items():
        if name in kind.paths and isinstance(given, str):
            problem = problem_of_nul(given, name) or Reading(asked.base, SENT).problem(given, name)
            problems += [problem] if problem is not None else []
        if name in ("app", *kind.paths) and not isinstance(given, str):
            problems.append(Problem(name, f"{shown(given)} is not a string"))
        elif name in CHECKS:
            if name not in ("ranks", "test_batch_size") and not isinstance(given, str):
                problems.append(Problem(name, f"{shown(given)} is not a string"))
                continue
            try:
                CHECKS[name](given)
            except Refused as refused:
                problems += refused.problems
    return problems


def _batch_size(given: Any) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise Refused([Problem("test_batch_size", f"{shown(given)} does not fit", "an integer, 1 or more")])


CHECKS: dict[str, Callable[[Any], None]] = {
    "resume": check_resume,
    "ranks": refuse_several,
    "scheduler": check_address,
    "test_batch_size": _batch_size,
}

_EVALUATED = ("checkpoint", "test_input_path", "test_target_path", "outfile", "test_output_path", "hdf5_outfile")
_RETRAINED = (RUN_FILE, "champion", "if_unchanged", "warm_start", "metric", "margin", "keep")
# Those that `rml schedule` makes are retrainings of another name.
KINDS = {
    "train": Kind((ROOT, "app", "base", "resume", "ranks", "scheduler"), (), _train, needs_file=True),
    "evaluate": Kind((*_EVALUATED, ROOT, "test_batch_size", "app", "base", "scheduler"), _EVALUATED, _evaluate),
    "retrain": Kind((ROOT, *_RETRAINED, "app", "base", "ranks", "scheduler"), (RUN_FILE, "champion"), _retrain),
}


def kind_of(deployment: str) -> Kind:
    return KINDS.get(deployment, KINDS["retrain"])
