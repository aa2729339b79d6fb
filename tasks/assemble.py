"""Assemble the predictions of slices: begun before they are made, fed while inference goes on, finished as a phase."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rml_core.engine.log import LogFiles, append, metrics_line
from rml_core.engine.progress import Blocks
from tasks import ranks
from tasks.cluster import cluster
from tasks.evaluate import AssembledEpoch
from tasks.load import cache_folder
from tasks.progress import log, publish

if TYPE_CHECKING:
    from rml_core.assembly.layout import Assembly
    from rml_core.assembly.writer import Assembler, MakeWay
    from rml_core.engine.evaluation import Take
    from rml_core.engine.rank import Setup
    from rml_core.engine.scoring import Scoring

# The decoded chunks of the targets that assembled predictions are held against: of what a run may hold.
CACHE_SHARE = 16


@dataclass(frozen=True)
class Assembling:
    """A handle: what is being assembled of one evaluation. It is never cached."""

    id: str


@dataclass
class _Live:
    assembly: Assembly
    scoring: Scoring | None
    scheduler: str | None
    stack: ExitStack
    assembler: Assembler | None = None
    began: float = 0.0


_live: dict[str, _Live] = {}


def begin(assembly: Assembly, setup: Setup, scheduler: str | None) -> Assembling:
    """Note what is to be assembled of an evaluation of `setup`; nothing is made before it begins. `scheduler`: the
    Dask cluster that does it; None: threads of this process."""
    handle = Assembling(uuid.uuid4().hex)
    _live[handle.id] = _Live(assembly, _scoring(setup), scheduler, ExitStack())
    return handle


def taking(assembling: Assembling, stopped: Callable[[], bool] = lambda: False) -> Take:
    """Make the file, for all its bytes; gives what takes the predictions (N, C, ...) of a batch of slices by their
    numbers, which waits while too much is under way. `stopped`: the run is to end, and no longer waits for workers.

    Raises:
        RunFailed: there is no room for the file, it cannot be written, no cluster answers.
    """
    from rml_core.assembly.writer import Assembler

    live = _live[assembling.id]
    if live.assembler is None:
        live.began = time.perf_counter()
        if live.scheduler is None:
            live.assembler = Assembler(live.assembly, _on_threads(live.stack), live.scoring)
        else:
            way = _on_cluster(live.stack, live.scheduler, stopped)
            scratch = cache_folder()
            scratch.mkdir(parents=True, exist_ok=True)
            live.assembler = Assembler(live.assembly, way, live.scoring, mapped=False, scratch=scratch)
    return live.assembler.add


def assemble(stage: ranks.Stage, assembling: Assembling, epoch: int, logs: LogFiles | None) -> AssembledEpoch:
    """Finish what evaluation has begun: the file appears, its figures go to the run's history and the log.

    Raises:
        RunFailed: the file cannot be written.
    """
    live = _live[assembling.id]
    assert live.assembler is not None
    phase = f"assemble {live.assembly.path.name}"

    def report(done: int, total: int, nbytes: int) -> None:
        # Most of it has been written while inference went on.
        publish(Blocks(phase, done, total, nbytes, time.perf_counter() - live.began))

    assembled = live.assembler.finish(report)
    figures = {}
    if live.scoring is not None:
        figures = {name: live.scoring.figures(counts) for name, counts in assembled.counts.items()}
    if assembled.beyond:
        log.warning(
            f"{assembled.beyond} numbers of {live.assembly.path} are beyond what half precision holds, 65504: "
            'they are infinite there; hdf5_precision "single" keeps them'
        )
    row = next((row for row in reversed(ranks.history(stage.ranks)) if row["epoch"] == epoch), {"epoch": epoch})
    if figures:
        row = {**row, "assembled": figures}
        ranks.record(stage.ranks, row)
    if logs is not None:
        append(logs.metrics, [metrics_line({**row, **ranks.measured(stage.ranks)})])
    done = AssembledEpoch(stage.ranks, epoch, figures)
    publish(done)
    return done


def discard(assembling: Assembling) -> None:
    """Let go of it; what is not whole leaves nothing."""
    live = _live.pop(assembling.id, None)
    if live is not None:
        with live.stack:
            if live.assembler is not None:
                live.assembler.discard()


def _scoring(setup: Setup) -> Scoring | None:
    """What holds the prediction against the targets, where there are any that lie in a volume."""
    from rml_core.config.limits import memory_limit
    from rml_core.engine.scoring import Scoring

    test, target = setup.test, setup.target
    if test is None or test.target is None or target is None or setup.fitted is None or not Scoring.fits(test):
        return None
    return Scoring(
        test=test,
        target=target,
        channels=setup.network.output_shape[0] or 1,
        source=setup.fitted.source,
        mapped=setup.mask_mapping,
        ignored=setup.loss.ignored(target) if setup.loss is not None else None,
        ignore_index=getattr(setup.loss, "ignore_index", None),
        cache_bytes=memory_limit() // CACHE_SHARE,
    )


def _on_threads(stack: ExitStack) -> MakeWay:
    """Threads of this process share what is done: no predictions are moved, and no cluster is waited for."""
    from rml_core.assembly.ring import MOST_STRIPES, Ring
    from rml_core.config.limits import memory_limit

    count = min(ranks.threads(), MOST_STRIPES)
    pool = stack.enter_context(ThreadPoolExecutor(count, "rml-assembler"))
    return lambda blends, finishing, path: Ring(blends, finishing, pool.submit, count, memory_limit(), path)


def _on_cluster(stack: ExitStack, scheduler: str, stopped: Callable[[], bool]) -> MakeWay:
    """Workers share what is done, from files that they see."""
    from rml_core.assembly.spool import Spool
    from rml_core.config.limits import memory_limit

    workers = stack.enter_context(cluster(scheduler, stopped))
    return lambda blends, finishing, path: Spool(blends, finishing, workers, memory_limit(), path)
