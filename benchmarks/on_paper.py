"""What a volume of 10 TB is made of, counted with the grids and regions of a run: the tables of `docs/scale.md`.

Nothing is measured here. `MESSAGES` and `BYTES` of a task were: what passed between client, scheduler and four workers
of distributed 2026.8.0 for 2,000 tasks with a 300-byte argument, each result fetched, divided by 2,000.
"""

from __future__ import annotations

from math import prod

from rml_core.assembly.regions import Regions
from rml_core.slicers.grid import Axis, SliceGrid

# 13568³ float32 are 9.99 TB.
LENGTH, WINDOW, NUMBER = 13568, 64, 4
STRIDES = {"none": 64, "a quarter": 48, "half": 32}
MESSAGES, BYTES = 12, 4500


def counted(stride: int) -> dict[str, str]:
    grid = SliceGrid("windows", tuple(Axis(LENGTH, WINDOW, stride) for _ in range(3)))
    regions = Regions(grid, 1)
    tasks, slices = prod(regions.counts), grid.count
    read = sum(grid.axes[0].stop(place) - grid.axes[0].start(place) for place in range(grid.counts[0]))
    layer = WINDOW * LENGTH * LENGTH * NUMBER
    return {
        "slices": f"{slices:,}",
        "a line, a batch": f"{grid.counts[2]}",
        "layers": f"{grid.counts[0]}",
        "read from the file system, TB": f"{read * LENGTH**2 * NUMBER / 1e12:.0f}",
        "predicted, TB": f"{slices * WINDOW**3 * NUMBER / 1e12:.0f}",
        "written, TB": f"{LENGTH**3 * NUMBER / 1e12:.0f}",
        "sums of a layer, GB": f"{layer / 1e9:.0f}",
        "spool of a layer, GB": f"{regions.slices_a_layer * WINDOW**3 * NUMBER / 1e9:.0f}",
        "regions, each a task": f"{tasks:,}",
        "a region, MB": f"{regions.largest * NUMBER / 1e6:.0f}",
        "messages": f"{tasks * MESSAGES / 1e6:.1f} million",
        "through the scheduler, GB": f"{tasks * BYTES / 1e9:.1f}",
    }


def table() -> str:
    columns = {name: counted(stride) for name, stride in STRIDES.items()}
    lines = [["overlap", *columns], ["---", *["---:"] * len(columns)]]
    lines += [[row, *(column[row] for column in columns.values())] for row in columns["none"]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    print(table())
