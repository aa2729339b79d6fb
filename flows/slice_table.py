"""What slicers make of the arrays of a run, a row a slice set: plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from rml_core.slicers.grid import Axis, SliceGrid

if TYPE_CHECKING:
    from flows.plan import Plan
    from rml_core.data.prepared import Prepared


@dataclass(frozen=True)
class SliceTable:
    """For who watches: the slice sets of a run, in rows of texts with the same keys."""

    rows: tuple[dict[str, str], ...]


def table_of(planned: Plan, prepared: dict[str, Prepared]) -> SliceTable:
    """The slice sets of all roles, in the order of the plan."""
    grids = [(role, grid) for role in planned.slice for grid in prepared[role].grids]
    return SliceTable(
        tuple(
            {
                "role": role,
                "set": grid.name,
                "slices": _times(grid.counts) + (f" = {grid.count}" if len(grid.counts) > 1 else ""),
                "sample": _times(each.sample_shape),
                "padding": _or_none([f"{axis.before} + {axis.after}" for axis in grid.axes], "0 + 0"),
                "padding and fill": f"{100 * padded(grid):.3g} %",
                "overlap": _or_none([f"{100 * _overlap(axis):.3g} %" for axis in grid.axes], "0 %"),
                "in gaps": f"{100 * left_out(grid):.3g} %",
                "prediction": _times(each.prediction_shape) if each.prediction_shape else "",
            }
            for (role, grid), each in zip(grids, planned.slice_sets, strict=True)
        )
    )


def padded(grid: SliceGrid) -> float:
    """The fraction of all samples' voxels that are padding or fill."""
    return 1 - prod(_own(axis) for axis in grid.axes) / prod(axis.count * axis.padded for axis in grid.axes)


def left_out(grid: SliceGrid) -> float:
    """The fraction of the prediction's voxels that are in gaps between slices."""
    covered = [_own(axis) if axis.stride > axis.size else axis.extent for axis in grid.axes]
    return 1 - prod(covered) / prod(grid.extent)


def _own(axis: Axis) -> int:
    """Voxels of the array in all slices along `axis`: the last one alone may reach beyond it."""
    last = axis.count - 1
    return last * axis.size + axis.stop(last) - axis.start(last)


def _overlap(axis: Axis) -> float:
    return 1 - axis.stride / axis.size if axis.overlaps else 0.0


def _times(sizes: tuple[int | None, ...]) -> str:
    return " x ".join("?" if size is None else str(size) for size in sizes)


def _or_none(each: list[str], nothing: str) -> str:
    return "none" if set(each) == {nothing} else ", ".join(each)
