"""How two programs are compared: the same work, taking turns, the best of several rounds of each."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the table: of ours and of the baseline's best round, in `unit`.

    With a baseline, `bound` limits ours / baseline; without one it limits ours.
    """

    name: str
    ours: float
    baseline: float | None
    bound: float
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        return None if self.baseline is None else self.ours / self.baseline

    @property
    def kept(self) -> bool:
        return (self.ours if self.ratio is None else self.ratio) <= self.bound


def interleaved(
    product: Callable[[], float], baseline: Callable[[], float] | None, rounds: int
) -> tuple[float, float | None]:
    """The shortest of `rounds` times of each; both return seconds.

    They take turns, so that what else the machine does meets both; every other round the baseline goes first.
    """
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(rounds):
        pair = [(product, ours), (baseline, theirs)]
        for measured, times in pair if turn % 2 else reversed(pair):
            if measured is not None:
                times.append(measured())
    return min(ours), min(theirs) if baseline else None


def in_turns(sides: Mapping[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, dict[str, float]]:
    """Of each side, every figure's smallest of `rounds`. They take turns; every other round goes backwards."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            found[name].append(sides[name]())
    return {name: {key: min(one[key] for one in each) for key in each[0]} for name, each in found.items()}


def compare(
    name: str, product: Callable[[], float], baseline: Callable[[], float] | None, bound: float, rounds: int
) -> Row:
    ours, theirs = interleaved(product, baseline, rounds)
    return Row(name, ours, theirs, bound)


def after_first_epoch(log: Path) -> float:
    """Seconds from the last batch of the first epoch to the last batch of the last one, by a training log.

    Each line is `epoch batch time_s loss grad_norm`. Reading data, building the network and the first epoch, in
    which everything warms up, stay out.
    """
    ends = _epoch_ends(log)
    return ends[-1] - ends[0]


def median_epoch(log: Path) -> float:
    """Seconds from one epoch's last batch to the next one's: the median, which a moment's other load does not move."""
    ends = _epoch_ends(log)
    return statistics.median(after - before for before, after in pairwise(ends))


def shortest_epoch(log: Path) -> float:
    """Seconds from one epoch's last batch to the next one's: the shortest."""
    return min(after - before for before, after in pairwise(_epoch_ends(log)))


def _epoch_ends(log: Path) -> list[float]:
    lines = [line.split() for line in log.read_text().splitlines()]
    ends = {int(epoch): float(seconds) for epoch, _, seconds, *_ in lines}
    if len(ends) < 2:
        raise ValueError(f"{log} has {len(ends)} epochs: at least 2 are needed")
    return [ends[epoch] for epoch in sorted(ends)]


def table(rows: Sequence[Row]) -> str:
    heading = ["name", "ours", "baseline", "ratio", "bound", ""]
    cells = [heading, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heading))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in cells
    )


def _cells(row: Row) -> list[str]:
    verdict = "kept" if row.kept else "MISSED"
    if row.baseline is None or row.ratio is None:
        return [row.name, _text(row.ours, row.unit), "", "", _text(row.bound, row.unit), verdict]
    return [
        row.name,
        _text(row.ours, row.unit),
        _text(row.baseline, row.unit),
        f"{row.ratio:.3f}",
        f"{row.bound:.2f}",
        verdict,
    ]


def _text(measured: float, unit: str) -> str:
    if unit == "s" and measured < 0.1:
        return f"{measured * 1e3:.1f} ms"
    return f"{measured:.2f} {unit}" if measured < 100 else f"{measured:.0f} {unit}"


def main(*benchmarks: Callable[[int, bool], list[Row]]) -> None:
    """The command line of one benchmark, or of all of them: prints the table, exits 1 where a bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured; the best counts")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does everything still run?")
    options = parser.parse_args()
    rows: list[Row] = []
    for benchmark in benchmarks:
        measured = benchmark(1 if options.quick else options.rounds, options.quick)
        if len(benchmarks) > 1:
            print("measured:", "; ".join(row.name for row in measured), file=sys.stderr, flush=True)
        rows += measured
    print(table(rows))
    if not options.quick:
        sys.exit(not all(row.kept for row in rows))
