"""Assembly by workers: files for what waits, bounded; nothing left, whatever goes wrong."""

from __future__ import annotations

import pickle
import re
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

from rml_core.assembly import spool as spools
from rml_core.assembly.layout import Assembly
from rml_core.assembly.spool import Spool
from rml_core.assembly.writer import Assembler
from rml_core.config.problem import RunFailed
from rml_core.slicers.grid import Axis, SliceGrid

PLANES = SliceGrid("planes", (Axis(40, 1, 1), Axis(8, 8, 8), Axis(8, 8, 8)))
PLANE = 8 * 8 * 4


def spooled(path: Path) -> list[int]:
    """Bytes of the files in the spool."""
    (folder,) = path.parent.glob(".prediction.h5.spool.*")
    return [file.stat().st_size for file in folder.iterdir()]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rml_core.assembly.regions.USUAL", PLANE)
    monkeypatch.setattr(spools, "LOOK_S", 0.01)


def add_planes(assembler: Assembler, count: int = PLANES.count) -> None:
    for number in range(count):
        assembler.add(np.array([number]), torch.full((1, 1, 8, 8), float(number)))


def assemble_planes(assembler: Assembler) -> None:
    add_planes(assembler)
    assembler.finish()


def test_what_waits_for_workers_is_bounded(path: Path, workers):
    held = threading.Semaphore(0)

    class Held(workers):
        def submit(self, function, *arguments):
            def after_a_word(*given):
                held.acquire()
                return function(*given)

            return super().submit(after_a_word, *arguments)

    way = lambda blends, finishing, where: Spool(blends, finishing, Held(1), 10 * PLANE, where)  # noqa: E731
    assembler = Assembler(Assembly(path, (PLANES,), 1), way, mapped=False)
    adding = threading.Thread(target=add_planes, args=(assembler,))
    adding.start()
    adding.join(0.5)
    assert len(spooled(path)) == 10
    for _ in range(5):
        held.release()
    adding.join(0.5)
    assert len(spooled(path)) == 10
    for _ in range(40):
        held.release()
    adding.join()
    assembler.finish()
    assert list(path.parent.iterdir()) == [path]


def test_what_a_task_says_ends_it(path: Path, workers):
    class Failing(workers):
        def submit(self, function, *arguments):
            task: Future[None] = Future()
            task.set_exception(RunFailed("target.h5 is damaged"))
            return task

    way = lambda blends, finishing, where: Spool(blends, finishing, Failing(1), 1 << 20, where)  # noqa: E731
    assembler = Assembler(Assembly(path, (PLANES,), 1), way, mapped=False)
    with pytest.raises(RunFailed, match=r"^target\.h5 is damaged$"):
        assemble_planes(assembler)
    assembler.discard()
    assert list(path.parent.iterdir()) == []


def test_nobody_is_there_to_do_it(path: Path, workers):
    class Alone(workers):
        def submit(self, function, *arguments):
            return Future()

        def check(self):
            raise RunFailed("no worker is left")

    way = lambda blends, finishing, where: Spool(blends, finishing, Alone(1), 3 * PLANE, where)  # noqa: E731
    assembler = Assembler(Assembly(path, (PLANES,), 1), way, mapped=False)
    with pytest.raises(RunFailed, match=r"^no worker is left$"):
        assemble_planes(assembler)
    assembler.discard()
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_under_the_spool(path: Path, spool, monkeypatch: pytest.MonkeyPatch):
    assembler = Assembler(Assembly(path, (PLANES,), 1), spool(), mapped=False)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spools, "_write", full)
    with pytest.raises(RunFailed, match=f"^{re.escape(str(path))}: No space left on device$"):
        assemble_planes(assembler)
    assembler.discard()
    assert list(path.parent.iterdir()) == []


def test_nothing_big_goes_to_the_workers(path: Path, workers):
    sizes = []

    class Pickling(workers):
        def submit(self, function, *arguments):
            sizes.append(len(pickle.dumps((function, arguments))))
            return super().submit(*pickle.loads(pickle.dumps((function, *arguments))))

    far = SliceGrid("set", (Axis(6, 2, 1), Axis(300, 100, 50), Axis(300, 100, 50)))
    assembly = Assembly(path, (far,), 1, "gaussian", said=(("run_file", "x" * 10**6),), slicers=("y" * 10**6,))
    way = lambda blends, finishing, where: Spool(blends, finishing, Pickling(2), 1 << 30, where)  # noqa: E731
    assembler = Assembler(assembly, way, mapped=False)
    for number in far.in_order(np.arange(far.count), far.slab_axis(1)):
        assembler.add(np.array([number]), torch.zeros(1, 1, 2, 100, 100))
    assembler.finish()
    assert max(sizes) < 4000
