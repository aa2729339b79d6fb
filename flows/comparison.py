"""The report of a round: champion beside challenger, as a page and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from flows.champion import Champions, Row
from flows.judging import OF_CLASS, WHOLE
from flows.markdown import code, plain

# Inches, and points an inch.
WIDTH, HEIGHT, DPI = 12.0, 4.0, 80


def markdown(row: Row, champions: Champions) -> str:
    """A page: who is champion and why, the figures of both, what was new, and where everything lies."""
    title = f"# Round {row['round']}: " + ("a new champion" if row["promoted"] else "the champion stays")
    lines = [title, "", plain(_sentence(row["why"])), ""]
    ours, theirs = row["challenger"]["figures"], (row["champion"] or {}).get("figures")
    lines += ["| | challenger | champion |", "| --- | --- | --- |"]
    for name, figure in _figures(row["metric"], ours, theirs):
        lines.append(f"| {plain(name)} | {_number(figure(ours))} | {_number(figure(theirs))} |")
    lines += ["", f"Compared by {plain(row['metric'])}; better has to be by more than {row['margin']:g}.", ""]
    samples = row["samples"]
    lines.append(f"- {samples['training']} training and {samples['test']} test samples")
    lines += [f"- {side}: {what}" for side, what in row["changes"].items()]
    lines.append(f"- {row['began']} to {row['ended']}")
    if row["champion"] is not None and row["champion"]["round"] is not None:
        lines.append(f"- the champion until then is of round {row['champion']['round']}")
    lines += [
        f"- the champion: {code(champions.folder / 'champion.pt')}",
        f"- this round: {code(champions.round_path(row['round']))}",
        f"- all rounds: {code(champions.folder / 'history.jsonl')}",
        "",
    ]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _figures(metric: str, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    """(name, how it is found in the figures of an evaluation) of all that is compared; the metric comes first."""
    found = [(name, _whole(name)) for name in WHOLE if name in ours and math.isfinite(_plain(ours[name]))]
    classes = [str(name) for name in ours.get("classes", ()) if name is not None]
    for figure in OF_CLASS:
        if figure in ours:
            found += [(f"{figure}:{name}", _of_class(figure, name)) for name in classes]
    return sorted(found, key=lambda each: each[0] != metric)


def _whole(name: str) -> Any:
    return lambda figures: _plain(figures.get(name)) if figures is not None else math.nan


def _of_class(figure: str, name: str) -> Any:
    def value(figures: Mapping[str, Any] | None) -> float:
        classes = [str(each) for each in figures.get("classes", ())] if figures is not None else []
        return _plain(figures[figure][classes.index(name)]) if figures is not None and name in classes else math.nan

    return value


def _plain(value: Any) -> float:
    """nan where JSON had no word for it."""
    return math.nan if value is None else float(value)


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def draw(row: Row, history: list[Row]) -> bytes:
    """A PNG: the metric of every round, new champions marked; and what champion and challenger have of each figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    rounds, bars = figure.subplots(1, 2)
    same = [each for each in history if each["metric"] == row["metric"]]
    numbers = [each["round"] for each in same]
    rounds.plot(
        numbers, [_plain(each["challenger"]["value"]) for each in same], "o-", color="tab:blue", label="challenger"
    )
    champions = [_plain(_champion_after(each)) for each in same]
    rounds.step(numbers, champions, where="mid", color="tab:orange", label="champion after the round")
    rounds.set(title=row["metric"], xlabel="round")
    rounds.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rounds.legend()
    ours, theirs = row["challenger"]["figures"], (row["champion"] or {}).get("figures")
    compared = _figures(row["metric"], ours, theirs)[:8]
    for offset, who, figures in ((-0.2, "challenger", ours), (0.2, "champion", theirs)):
        if figures is not None:
            places = [index + offset for index in range(len(compared))]
            colour = "tab:blue" if who == "challenger" else "tab:orange"
            bars.bar(places, [each(figures) for _, each in compared], 0.4, label=who, color=colour)
    bars.set_xticks(range(len(compared)), [name for name, _ in compared], rotation=30, ha="right")
    bars.set_title(f"round {row['round']}: " + ("a new champion" if row["promoted"] else "the champion stays"))
    bars.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _champion_after(row: Row) -> Any:
    return row["challenger"]["value"] if row["promoted"] or row["champion"] is None else row["champion"]["value"]
