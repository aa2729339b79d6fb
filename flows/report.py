"""The picture of a run: curves of loss and accuracy, and a sheet of test samples with what the network made of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from rml_core.engine.log import put

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from flows.phases import Outcome
    from rml_core.engine.evaluation import Gallery

COLUMNS = 8


def of(outcome: Outcome) -> bytes:
    """The picture, as PNG; it goes beside the logs too."""
    picture = draw(outcome.history, outcome.gallery, outcome.classes, outcome.source)
    if outcome.places.logs is not None:
        put(outcome.places.logs.report, picture, otherwise="; all else that the run writes is there")
    return picture


def markdown(outcome: Outcome) -> str:
    """A table with a row an epoch, and the files that were written."""
    keys = ["epoch", "train_loss", "test_loss", "accuracy", "learning_rate", "samples_per_s"]
    keys = [key for key in keys if any(key in row for row in outcome.history)]
    lines = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    lines += [
        "| " + " | ".join(f"{row[key]:.6g}" if key in row else "" for key in keys) + " |" for row in outcome.history
    ]
    return "\n".join([*lines, "", *(f"- `{path}`{note and ', ' + note}" for path, note in outcome.places.written())])


def draw(history: list[dict[str, Any]], gallery: Gallery, classes: tuple[str, ...], source: str = "") -> bytes:
    """A PNG: curves above, at most 32 samples below. `source`: what the network's output is, `logits` for example."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pictures = [index for index, sample in enumerate(gallery.inputs) if sample.ndim == 3]
    rows = -(-len(pictures) // COLUMNS)
    figure = Figure(figsize=(12, 4 + 1.75 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    curves: FigureBase = figure
    if rows:
        curves, sheet = figure.subfigures(2, 1, height_ratios=[4, 1.75 * rows])  # type: ignore[misc]
        axes = sheet.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, index in zip(axes, pictures, strict=False):
            _sample(axis, gallery, index, classes, half=0.0 if source == "logits" else 0.5)
    _curves(curves.subplots(1, 2), history)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _curves(axes: Any, history: list[dict[str, Any]]) -> None:
    losses, accuracies = axes
    for key, label in (("train_loss", "training"), ("test_loss", "test")):
        _curve(losses, history, key, label)
    losses.set(title="loss", xlabel="epoch")
    if losses.lines:
        losses.legend()
    _curve(accuracies, history, "accuracy", "test")
    accuracies.set(title="accuracy", xlabel="epoch")
    if not accuracies.lines:
        accuracies.set_visible(False)


def _curve(axis: Axes, history: list[dict[str, Any]], key: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    points = [(row["epoch"], row[key]) for row in history if np.isfinite(row.get(key, np.nan))]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _sample(axis: Axes, gallery: Gallery, index: int, classes: tuple[str, ...], half: float) -> None:
    output = gallery.outputs[index]
    target = gallery.targets[index] if gallery.targets else None
    if output.ndim == 1:
        axis.imshow(_colour(_picture(gallery.inputs[index])), interpolation="nearest")
        if target is not None and target.ndim:
            axis.set_title(f"{_numbers(output)}\ntrue {_numbers(target)}", fontsize=7)
            return
        predicted = int(output.argmax()) if len(output) > 1 else int(output[0] >= half)
        text = _class(predicted, classes)
        colour = "black"
        if target is not None:
            right = int(target) == predicted
            text += f", true {_class(int(target), classes)}"
            colour = "tab:green" if right else "tab:red"
        axis.set_title(text, color=colour, fontsize=9)
        return
    shown = {"input": _picture(gallery.inputs[index])}
    if output.ndim != 3:
        # A signal or a volume made of a picture is none itself.
        target = None
    if target is not None and target.ndim == 3:
        limits = float(target.min()), float(target.max())
        shown |= {"target": _picture(target, limits), "output": _picture(output, limits)}
    else:
        # Classes: the same shade stands for the same one in both.
        limits = 0.0, float(max(len(output) - 1, 1))
        if target is not None:
            shown["target"] = _picture(target, limits)
        if output.ndim == 3:
            found = output.argmax(0) if len(output) > 1 else output[0] >= half
            shown["output"] = _picture(found, limits)
    height = gallery.inputs[index].shape[1]
    axis.imshow(
        np.concatenate([_of_height(_colour(each), height) for each in shown.values()], 1), interpolation="nearest"
    )
    axis.set_title(" | ".join(shown), fontsize=7)


def _numbers(values: np.ndarray) -> str:
    """The first few, to three digits."""
    return ", ".join(f"{value:.3g}" for value in values[:3]) + (", ..." if len(values) > 3 else "")


def _class(index: int, classes: tuple[str, ...]) -> str:
    return classes[index] if index < len(classes) else str(index)


def _picture(sample: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """(C, H, W) or (H, W) as (H, W) or (H, W, 3), `limits` (or its own) as 0 and 1; three channels are BGR, as OpenCV
    reads them."""
    if sample.ndim == 3:
        sample = sample[::-1].transpose(1, 2, 0) if len(sample) == 3 else sample[0]
    sample = sample.astype(np.float32)
    low, high = limits or (float(sample.min()), float(sample.max()))
    return ((sample - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(sample)


def _colour(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _of_height(picture: np.ndarray, height: int) -> np.ndarray:
    """Nearest neighbours: a network may change the size of what it gets."""
    rows = np.arange(height) * len(picture) // height
    width = max(1, picture.shape[1] * height // len(picture))
    return picture[rows][:, np.arange(width) * picture.shape[1] // width]
