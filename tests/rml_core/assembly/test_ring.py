"""Assembly by threads: bounded, and over when something goes wrong."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from rml_core.assembly import ring as rings
from rml_core.assembly.layout import Assembly, Layout
from rml_core.assembly.ring import Ring
from rml_core.assembly.writer import Assembler
from rml_core.config.problem import RunFailed
from rml_core.slicers.grid import Axis, SliceGrid


def assemble_bricks(assembler: Assembler, bricks: SliceGrid) -> None:
    for number in bricks.in_order(np.arange(bricks.count), bricks.slab_axis(1)):
        assembler.add(np.array([number]), torch.zeros(1, 1, 4, 4, 4))
    assembler.finish()


def test_a_full_disk_is_said_once_and_leaves_nothing(
    bricks, path: Path, ring, small_regions_of, monkeypatch: pytest.MonkeyPatch
):
    path.write_text("the one before")
    written = []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        written.append(len(data))
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    with small_regions_of(100, 300, 10):
        assembler = Assembler(Assembly(path, (bricks,), 1), ring(), mapped=False)
        with pytest.raises(RunFailed, match=f"^{re.escape(str(path))}: No space left on device$"):
            assemble_bricks(assembler, bricks)
        assembler.discard()
    assert path.read_text() == "the one before"
    assert list(path.parent.iterdir()) == [path]


def test_what_is_discarded_half_way_leaves_nothing(bricks, path: Path, ring):
    before = threading.active_count()
    assembler = Assembler(Assembly(path, (bricks,), 1), ring())
    numbers = bricks.in_order(np.arange(5), bricks.slab_axis(1))
    assembler.add(numbers, torch.zeros(5, 1, 4, 4, 4))
    assembler.discard()
    assembler.discard()
    assert list(path.parent.iterdir()) == []
    assert threading.active_count() <= max(before, 8 + 1)


def test_who_is_ahead_waits(path: Path, ring, monkeypatch: pytest.MonkeyPatch):
    """While the disk is stuck, no more predictions are taken than there is room for, and one batch."""
    grid = SliceGrid("planes", (Axis(100, 1, 1), Axis(8, 8, 8), Axis(8, 8, 8)))
    go_on, stuck = threading.Event(), threading.Event()
    write = Layout.write

    def slow(*arguments: object) -> None:
        stuck.set()
        go_on.wait()
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Layout, "write", slow)
    monkeypatch.setattr("rml_core.assembly.regions.USUAL", 8 * 8 * 4)
    # Ten planes.
    monkeypatch.setattr(rings, "WAITING_MOST", 10 * 8 * 8 * 4)
    assembler = Assembler(Assembly(path, (grid,), 1), ring(1))
    taken = 0

    def add_all() -> None:
        nonlocal taken
        for number in range(100):
            assembler.add(np.array([number]), torch.full((1, 1, 8, 8), float(number)))
            taken += 1

    adding = threading.Thread(target=add_all)
    adding.start()
    stuck.wait()
    adding.join(0.2)
    assert adding.is_alive()
    assert taken <= 11
    go_on.set()
    adding.join()
    assembler.finish()


@pytest.mark.parametrize("memory", [1 << 30, 100])
def test_vectors_are_used_again(bricks, path: Path, threads, memory: int):
    """As many as there are regions under way, in memory or in a file that nobody sees."""
    made = []

    def way(blends, finishing, where):
        made.append(Ring(blends, finishing, threads.submit, 1, memory, where))
        return made[0]

    assembler = Assembler(Assembly(path, (bricks,), 1), way)
    for number in bricks.in_order(np.arange(bricks.count), 0):
        assembler.add(np.array([number]), torch.zeros(1, 1, 4, 4, 4))
    assert len(list(path.parent.iterdir())) == 1
    assembler.finish()
    sums = made[0]._stripes[0]._sums
    assert len(sums._free) <= 4
    assert all(isinstance(vector.base, type(None)) == (memory > 100) for vector in sums._free)
