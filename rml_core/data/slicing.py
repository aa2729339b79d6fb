"""What goes with slicers, and what belongs to them, as the keys of the data section say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from rml_core.config.names import wrong
from rml_core.config.problem import listed, shown
from rml_core.config.section import Place
from rml_core.data.table import DATA_TYPES
from rml_core.slicers.section import integers, kept
from rml_core.transforms import TRANSFORMS

Found = Iterator[tuple[Place, PydanticCustomError]]

# What says how the assembled file is written.
OF_OUTFILE = ("hdf5_precision", "hdf5_output", "overlap_blend")

_MOVES = {name.casefold(): name for name, transform in TRANSFORMS.items() if transform.spatial}


def contradictions(given: Mapping[str, Any]) -> Found:
    """(place, problem) for what the keys about slices say together, and with the others."""
    if given.get("slicers"):
        yield from _beside(given)
        yield from _sets(given["slicers"])
    yield from _outfile(given)


def _beside(given: Mapping[str, Any]) -> Found:
    cut = listed(name for name, kind in DATA_TYPES.items() if kind.sliced)
    for key in ("type", "input_type", "target_type"):
        name = given.get(key)
        kind = DATA_TYPES.get(name.casefold()) if isinstance(name, str) else None
        if kind is not None and not kind.sliced:
            yield (key,), wrong(f"slicers do not cut {shown(name)}", cut, "or leave out slicers")
    if given.get("validation_split") is not None:
        what = "does not go with slicers: neighbouring slices of one volume are nearly alike"
        yield ("validation_split",), wrong(what, "", "give a volume of its own to evaluate on, with test_input_path")


def _sets(slicers: Any) -> Found:
    """What the sets say of each other."""
    if not isinstance(slicers, list | tuple):
        return
    sets = [each if isinstance(each, Mapping) else {} for each in slicers]
    names: dict[str, int] = {}
    for number, each in enumerate(sets):
        given = each.get("name")
        name = given if isinstance(given, str) else f"slice_set_{number + 1}"
        first = names.setdefault(name, number)
        if first != number:
            at, other = (number, first) if given is not None else (first, number)
            yield ("slicers", at, "name"), wrong(f"{shown(name)} is what slicers[{other}] is called", "another name")
    sized = [(number, sizes) for number, each in enumerate(sets) if (sizes := integers(each, "sizes"))]
    for number, sizes in sized[1:]:
        first, others = sized[0]
        what = f"{shown(sizes)} has {len(sizes)} sizes, and slicers[{first}] has {len(others)}: they cut one array"
        if len(sizes) != len(others):
            yield ("slicers", number, "sizes"), wrong(what, "as many sizes in every set")
        elif kept(sizes) != kept(others):
            what = f"{shown(sizes)} makes {kept(sizes)}D samples, and slicers[{first}] {kept(others)}D ones"
            yield ("slicers", number, "sizes"), wrong(what, "samples of one rank: one network takes all of them")


def _outfile(given: Mapping[str, Any]) -> Found:
    if given.get("hdf5_outfile") is None:
        for key in OF_OUTFILE:
            if given.get(key) is not None:
                what = "there is no hdf5_outfile that it could belong to"
                yield (key,), wrong(what, "", f"give one, or leave out {key}")
        return
    if not given.get("slicers"):
        what = "there are no slicers, and it is slices that are assembled"
        yield ("hdf5_outfile",), wrong(what, "", "give slicers; or test_output_path, which takes any predictions")
    if given.get("test_input_path") is None:
        what = "there is no test_input_path that it could belong to"
        yield ("hdf5_outfile",), wrong(what, "", "give one, or leave out hdf5_outfile")
    for key in ("transforms", "input_transforms", "target_transforms"):
        steps = given.get(key)
        for number, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
            name = next(iter(step)) if isinstance(step, Mapping) and len(step) == 1 else None
            if isinstance(name, str) and name.casefold() in _MOVES:
                what = "moves pixels, and hdf5_outfile puts predictions where their slices lie"
                remedy = "leave out one of the two: assemble in a run of its own, which loads what this one saves"
                yield (key, number, _MOVES[name.casefold()]), wrong(what, "", remedy)
