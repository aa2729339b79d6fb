"""Predictions of slices, put together in every way there is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rml_core.assembly import regions
from rml_core.assembly import spool as spools
from rml_core.assembly.layout import Assembly
from rml_core.assembly.ring import Ring
from rml_core.assembly.spool import Spool
from rml_core.assembly.writer import Assembled, Assembler, MakeWay
from rml_core.slicers import grid as grids
from rml_core.slicers.grid import Axis, SliceGrid


class Threads:
    """Workers of a cluster, as threads of this process; `order` says which of the waiting tasks comes next."""

    def __init__(self, count: int, order: Callable[[int], int] = lambda waiting: 0) -> None:
        self._pool, self._order = ThreadPoolExecutor(count), order
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._choosing = threading.Lock()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        task: Future[Any] = Future()
        self._waiting.append((task, partial(function, *arguments)))
        self._pool.submit(self._next)
        return task

    def _next(self) -> None:
        with self._choosing:
            task, call = self._waiting.pop(self._order(len(self._waiting)))
        if not task.set_running_or_notify_cancel():
            return
        try:
            task.set_result(call())
        except BaseException as error:
            task.set_exception(error)

    def check(self) -> None: ...


@pytest.fixture(scope="session")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def workers() -> type[Threads]:
    return Threads


@pytest.fixture(scope="session")
def ring(threads: ThreadPoolExecutor) -> Callable[..., MakeWay]:
    """ring(stripes=2, memory=1 << 30)"""
    return lambda stripes=2, memory=1 << 30: (
        lambda blends, finishing, path: Ring(blends, finishing, threads.submit, stripes, memory, path)
    )


@pytest.fixture(scope="session")
def spool() -> Callable[..., MakeWay]:
    """spool(workers=2, memory=1 << 30, order=first come first served)"""
    return lambda count=2, memory=1 << 30, **order: (
        lambda blends, finishing, path: Spool(blends, finishing, Threads(count, **order), memory, path)
    )


def assemble(assembly: Assembly, way: MakeWay, outputs: Any, batch: int = 4, **options: Any) -> Assembled:
    """Hand over `outputs`, an array (slices, C, *sample) for each set, in their order; what is said at the end."""
    assembler = Assembler(assembly, way, **options)
    first = 0
    try:
        for grid, predictions in zip(assembly.grids, outputs, strict=True):
            axis = grid.slab_axis(assembly.channels)
            for at in range(0, grid.count, batch):
                positions: Any = np.arange(at, min(at + batch, grid.count))
                numbers: Any = grid.in_order(positions, axis)
                assembler.add(first + numbers, torch.from_numpy(predictions[numbers]))
            first += grid.count
        return assembler.finish()
    finally:
        assembler.discard()


@pytest.fixture(scope="session", name="assemble")
def assemble_() -> Callable[..., Assembled]:
    return assemble


@pytest.fixture(scope="session")
def one_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    """one_set(grid, way, outputs, batch=4, **what an `Assembly` has): the dataset, from the file."""
    path = tmp_path_factory.mktemp("assembled") / "prediction.h5"

    def put_together(grid: SliceGrid, way: MakeWay, outputs: np.ndarray, batch: int = 4, **options: Any) -> np.ndarray:
        assemble(Assembly(path, (grid,), outputs.shape[1], **options), way, [outputs], batch)
        with h5py.File(path) as file:
            return file[grid.name][...]

    return put_together


@contextmanager
def small_regions(usual: int, most: int, easy: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "USUAL", usual)
        patch.setattr(regions, "MOST", max(usual, most))
        patch.setattr(grids, "EASY_LAYER", easy)
        # Workers keep what regions they have worked out: of the same grid, but with other limits.
        spools._blend.cache_clear()
        yield
    spools._blend.cache_clear()


@pytest.fixture(scope="session")
def small_regions_of() -> Callable[[int, int, int], AbstractContextManager[None]]:
    """Let there be several regions in small volumes: (usual bytes, most bytes, numbers of an easy layer)."""
    return small_regions


@pytest.fixture
def bricks() -> SliceGrid:
    """Halfway overlapping bricks, the last ones of which are cut short."""
    return SliceGrid("bricks", (Axis(13, 4, 2), Axis(10, 4, 2), Axis(9, 4, 3)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prediction.h5"
