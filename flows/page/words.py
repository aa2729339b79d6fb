"""What stands on a run's page, as text: plain functions of what is known of the run."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.markdown import code, fenced, plain
from rml_core.config.problem import redacted

if TYPE_CHECKING:
    from flows.begun import Begun
    from rml_core.config.paths import AnyPath
    from rml_core.optimizer import OptimizerSection

# The column of a figure of an epoch; what is in none of its rows is left out.
COLUMNS = {
    "epoch": "epoch",
    "train_loss": "train loss",
    "test_loss": "test loss",
    "accuracy": "accuracy",
    "mae": "MAE",
    "rmse": "RMSE",
    "learning_rate": "learning rate",
    "samples_per_s": "samples/s",
    "test_samples_per_s": "test samples/s",
    "memory_mb": "memory (MB)",
    "gpu_memory_mb": "GPU memory (MB)",
}
HEADLINE = ("train_loss", "test_loss", "accuracy")
# Characters of a run file on its page: a network written out can have millions.
LONGEST = 100_000


def epochs(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row an epoch, the newest first, each with the same columns; "": there is no such figure."""
    rows = [{**row, **assembled(row)} for row in history]
    figures = [key for key in COLUMNS if key not in ("test_samples_per_s",) or not _have(rows, "samples_per_s")]
    figures[4:4] = dict.fromkeys(key for row in rows for key in assembled(row))
    shown = [key for key in figures if _have(rows, key)]
    return [{COLUMNS.get(key, key): _figure(key, row.get(key)) for key in shown} for row in reversed(rows)]


def assembled(row: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies of assembled volumes, or their mean errors, as columns of their own."""
    found = {}
    for name, figures in row.get("assembled", {}).items():
        key = "accuracy" if math.isfinite(figures.get("accuracy", math.nan)) else "mae"
        if key in figures:
            found[f"{name}, assembled: {key}"] = figures[key]
    return found


def _have(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(_is_number(row.get(key)) for row in rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _figure(key: str, value: Any) -> Any:
    if not _is_number(value):
        return ""
    if key.endswith(("_per_s", "_mb")):
        return round(value)
    return value if key == "epoch" else f"{value:.5g}"


def headline(history: Sequence[Mapping[str, Any]], last: int) -> str:
    """`epoch 12 of 50: train loss 0.21, test loss 0.34, accuracy 0.951 (best: 0.962 in epoch 10)`"""
    if not history:
        return "no epoch is complete yet"
    row = history[-1]
    figures = {key: _figure(key, row[key]) for key in HEADLINE if _is_number(row.get(key))}
    for key, choose in (("accuracy", max), ("test_loss", min)):
        rows = [each for each in history if _is_number(each.get(key))]
        if len(rows) > 1 and key in figures:
            best = choose(rows, key=lambda each: each[key])
            figures[key] += f" (best: {_figure(key, best[key])} in epoch {best['epoch']})"
            break
    said = ", ".join(f"{COLUMNS[key]} {figure}" for key, figure in figures.items())
    what = f"epoch {row['epoch']} of {last}" if last > 1 else f"epoch {row['epoch']}"
    return f"{what}: {said}" if said else what


def network(begun: Begun) -> str:
    """The table of `rml network`."""
    from flows.network import table

    return fenced(table(begun.checked.network))


def run_file(mapping: Mapping[str, Any]) -> str:
    """The run file as it was given, without secrets; a network of many layers by its length."""
    text = json.dumps(mapping, indent=2)
    if len(text) > LONGEST:
        text = json.dumps({name: _without_layers(section) for name, section in mapping.items()}, indent=2)
    # What is secret is left out first: cut in two it would not be seen.
    return fenced(redacted(text)[:LONGEST], "json")


def _without_layers(section: Any) -> Any:
    if not isinstance(section, Mapping) or "layers" not in section:
        return section
    return {**section, "layers": f"({len(json.dumps(section['layers'])):,} characters: see the artifact `network`)"}


def summary(begun: Begun, history: Sequence[Mapping[str, Any]], warnings: Iterable[str], ended: bool) -> str:
    """What the run is, where what it writes is, and what it has warned of."""
    checked, planned = begun.checked, begun.planned
    file = checked.run.file
    lines = [f"**{headline(history, file.num_epochs)}**", "", "| | |", "| --- | --- |"]
    facts = {
        "run file": code(_absolute(checked.run.source), in_table=True) if checked.run.source is not None else "",
        "training": _samples(planned.samples["train"], planned.batches["train"]),
        "test": _samples(planned.samples["test"], planned.batches["test"]),
        "network": f"{planned.parameters:,} parameters, {_shape(planned.sample_shape)} to "
        f"{_shape(planned.output_shape)} (channels first)",
        "loss": file.loss.function if file.loss is not None else "",
        "optimizer": _optimizer(file.optimizer) if file.optimizer is not None else "",
        "begins at": f"epoch {begun.first}" if begun.first > 1 else "",
        "precision": f"{file.precision}, device {file.device}",
        "host": code(socket.gethostname(), in_table=True),
    }
    lines += [f"| {what} | {fact} |" for what, fact in facts.items() if fact]
    lines += ["", f"### Outputs, on {code(socket.gethostname())}", ""]
    outputs = [f"- {code(path)}{note and ', ' + note}" for path, note in begun.places.written()] if ended else []
    lines += outputs or _will_be(begun) or ["The run writes nothing: `outfile` is not set."]
    said = list(dict.fromkeys(warnings))
    if said:
        lines += ["", "### Warnings", "", *(f"- {plain(text)}" for text in said)]
    return redacted("\n".join(lines))


def _optimizer(section: OptimizerSection) -> str:
    rate = getattr(section, "learning_rate", None)
    return section.type if rate is None else f"{section.type}, learning rate {rate:g}"


def _will_be(begun: Begun) -> list[str]:
    places = begun.places
    found: list[tuple[Any, str]] = []
    if places.logs is not None:
        found += [(path, "") for path in (places.logs.train, places.logs.test, places.logs.metrics, places.logs.report)]
    found += [(places.checkpoints, "checkpoints")] if places.checkpoints is not None else []
    found += [(places.output, "predictions")] if places.output is not None else []
    found += [(places.prediction, "the assembled prediction")] if places.prediction is not None else []
    found += [(places.debug, "debug information")] if places.debug is not None else []
    return [f"- {code(path)}{note and ', ' + note}" for path, note in found]


def _absolute(path: AnyPath) -> AnyPath:
    return path.absolute() if isinstance(path, Path) else path


def _samples(count: int, batches: int) -> str:
    if not count:
        return ""
    return f"{count:,} sample{'s' * (count > 1)} in {batches:,} batch{'es' * (batches > 1)}"


def _shape(sizes: Iterable[int | None]) -> str:
    return " x ".join("?" if size is None else str(size) for size in sizes)
