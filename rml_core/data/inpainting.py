"""What goes with a transform that makes the targets out of the inputs, as the keys of the section say it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from rml_core.config.names import wrong
from rml_core.transforms import TRANSFORMS

MAKERS = {name.casefold(): name for name, transform in TRANSFORMS.items() if transform.makes_targets}


def maker(given: Mapping[str, Any], key: str = "transforms") -> str | None:
    """The name of the transform in the list `key` that makes targets; None where there is none."""
    found = _makers(given, key)
    return found[0] if found else None


def contradictions(given: Mapping[str, Any]) -> Iterator[tuple[str, PydanticCustomError]]:
    """(key, problem) for what cannot stand beside such a transform, or where it cannot stand itself."""
    for key in ("input_transforms", "target_transforms"):
        name = maker(given, key)
        if name is not None:
            yield key, wrong(f"{name} makes inputs and targets", "", "move it to transforms")
    makers = _makers(given, "transforms")
    if not makers:
        return
    name = makers[0]
    if len(makers) > 1:
        yield "transforms", wrong(f"{name} stands there {len(makers)} times", "once", f"raise the number of {name}")
    made = f"{name} makes the targets out of the inputs"
    kind, target_kind = given.get("input_type"), given.get("target_type")
    if isinstance(kind, str) and isinstance(target_kind, str) and kind.casefold() != target_kind.casefold():
        yield "target_type", wrong(made, kind, "leave target_type out")
    for inputs, targets in (("input_path", "target_path"), ("test_input_path", "test_target_path")):
        one, other = given.get(inputs), given.get(targets)
        if isinstance(one, str) and isinstance(other, str) and os.path.normpath(one) != os.path.normpath(other):
            yield targets, wrong(made, f"the {inputs} again", f"leave {targets} out")
    if given.get("target_is_mask") is True:
        yield "target_is_mask", wrong(f"{made}: they are values", "", "leave target_is_mask out")
    if given.get("target_grayscale") is True and not (given.get("grayscale") or given.get("input_grayscale")):
        yield "target_grayscale", wrong(made, "", "set grayscale: inputs and targets are then of one channel")


def _makers(given: Mapping[str, Any], key: str) -> list[str]:
    members = given.get(key)
    if not isinstance(members, list | tuple):
        return []
    names = [next(iter(each)) for each in members if isinstance(each, Mapping) and len(each) == 1]
    return [MAKERS[name.casefold()] for name in names if isinstance(name, str) and name.casefold() in MAKERS]
