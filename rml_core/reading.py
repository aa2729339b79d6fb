"""A run file read by who is going to look at its data as well: problems of both are said at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rml_core.check import Collected, taking
from rml_core.config.problem import Problem, Refused
from rml_core.config.section import parse
from rml_core.config.trust import Origin
from rml_core.data.files import ROLES
from rml_core.data.section import Data
from rml_core.data.survey import WHERE, find, survey
from rml_core.layers import keras_json
from rml_core.run import ROOT, Run, opened, read

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


def read_with_data(
    source: AnyPath | str | Mapping[str, Any], base: AnyPath | str | None = None, origin: Origin | None = None
) -> Run:
    """As `rml_core.run.read`. What is wrong with the data files is for `rml_core.check` to say, unless the run file is
    refused: then it is said along with that, where the section `data` is right by itself.

    Raises:
        Refused: with every problem.
    """
    try:
        return read(source, base, origin)
    except Refused as refused:
        # A network that may not be read is not looked at any further.
        with_network = not any(problem.where.startswith(f"{ROOT}.layers") for problem in refused.problems)
        found = _of_data(source, base, origin, with_network)
        raise Refused(dict.fromkeys([*refused.problems, *found])) from None


def _of_data(
    source: AnyPath | str | Mapping[str, Any], base: AnyPath | str | None, origin: Origin | None, with_network: bool
) -> list[Problem]:
    """What is wrong with the files of a section `data` that is right; of samples' shapes only `with_network`."""
    try:
        mapping, folder, reading = opened(source, base, origin)
        data = parse(Data, mapping[ROOT].get("data"), WHERE, reading)
        takes = taking(keras_json.read(mapping[ROOT]["layers"], f"{ROOT}.layers", folder)) if with_network else None
    except Refused:
        return []
    collected, classes = Collected(), None
    for role in ROLES:
        if getattr(data, data.path_keys(role)[0]) is None:
            continue
        if takes is None:
            collected.of(find, data, role, folder, WHERE)
            continue
        found = collected.of(survey, data, role, folder, classes, WHERE, takes)
        classes = found.classes if found is not None else None
    return collected.problems
