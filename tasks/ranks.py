"""Where live training state is. Phases hold a `Ranks`, which says nothing of where its ranks run.

One rank is an object in this process. The functions here are the only ones that know it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath
    from rml_core.engine.epoch import Sums
    from rml_core.engine.evaluation import Evaluated, Take
    from rml_core.engine.gallery import Gallery
    from rml_core.engine.progress import Blocks, Progress
    from rml_core.engine.rank import Rank, Setup


@dataclass(frozen=True)
class Ranks:
    """A handle: the ranks of one run. It is never cached: after a retry the ranks it names are gone."""

    id: str
    count: int


@dataclass(frozen=True)
class Stage:
    """What a phase of training gives to the next one: the ranks, as they are after it."""

    ranks: Ranks


_live: dict[str, list[Rank]] = {}


def threads() -> int:
    """Loader threads: `RML_THREADS`, else the cores this process may use.

    Raises:
        Refused: the variable is not a positive integer.
    """
    given = os.environ.get("RML_THREADS")
    if given is None:
        return len(os.sched_getaffinity(0))
    if not given.isdecimal() or int(given) < 1:
        raise Refused([Problem("RML_THREADS", f'"{given}" does not fit', "a number of threads, 1 or more")])
    return int(given)


def refuse_several(count: int | None) -> None:
    """Raises `Refused` where more than one rank is asked for."""
    if count is not None and count != 1:
        raise Refused([Problem("--ranks", f"{count} ranks are not available yet", "1")])


def start(setup: Setup) -> Ranks:
    """Build the ranks: network, weights, optimizer, or what `setup.resume` holds of them."""
    from rml_core.engine.rank import Rank

    handle = Ranks(uuid.uuid4().hex, setup.world_size)
    _live[handle.id] = [Rank(setup)]
    return handle


def said(ranks: Ranks) -> list[str]:
    """What loading weights had to say."""
    return list(_live[ranks.id][0].said)


def warnings(ranks: Ranks) -> list[str]:
    """What passes have shown of the samples since the last call."""
    return list(dict.fromkeys(line for rank in _live[ranks.id] for line in rank.warnings()))


def train_epoch(ranks: Ranks, number: int, report: Callable[[Progress], None]) -> tuple[Sums, float]:
    """The sums over all ranks, and the learning rate."""
    members = _live[ranks.id]
    sums = [rank.train_epoch(number, report) for rank in members]
    total = sums[0]
    for other in sums[1:]:
        total.loss += other.loss
        total.samples += other.samples
        total.seconds = max(total.seconds, other.seconds)
    return total, members[0].learning_rate(number)


def evaluate(
    ranks: Ranks,
    number: int,
    output: AnyPath | None,
    report: Callable[[Blocks], None] | None = None,
    take: Take | None = None,
) -> Evaluated:
    """One pass over the test samples; `output` and `take` are given the predictions."""
    (evaluated,) = [rank.evaluate(number, output, report, take) for rank in _live[ranks.id]]
    return evaluated


def gallery(ranks: Ranks) -> Gallery:
    """A few samples of the last evaluation."""
    return _live[ranks.id][0].gallery


def record(ranks: Ranks, row: dict[str, Any]) -> None:
    """Complete the epoch's row in the history that every rank carries."""
    for rank in _live[ranks.id]:
        rank.record(row)


def history(ranks: Ranks) -> list[dict[str, Any]]:
    return list(_live[ranks.id][0].history)


def position(ranks: Ranks) -> tuple[int, int]:
    """(epoch, batch) that training has reached; batch 0: the epoch is complete."""
    first = _live[ranks.id][0]
    return first.epoch, first.batch


def measured(ranks: Ranks) -> dict[str, float]:
    """Seconds since training began, `time_s`, and the most memory that a rank has held, in MB."""
    each = [rank.measured() for rank in _live[ranks.id]]
    return {key: max(figures[key] for figures in each) for key in each[0]}


def save(ranks: Ranks, path: AnyPath) -> None:
    """The checkpoint: the state of all ranks is the same but for their random states."""
    _live[ranks.id][0].save(path)


def debug_statistics(ranks: Ranks, path: Path) -> None:
    _live[ranks.id][0].debug_statistics(path)


def stop(ranks: Ranks) -> None:
    """End the pass that is under way at the next batch; may be called from a signal handler."""
    for rank in _live.get(ranks.id, []):
        rank.stop()


def stopped(ranks: Ranks) -> bool:
    """Whether `stop` has been called, or the ranks are gone."""
    return all(rank.stopped for rank in _live.get(ranks.id, []))


def close(ranks: Ranks) -> None:
    """Let go of the state and its memory."""
    for rank in _live.pop(ranks.id, []):
        rank.close()
