"""The picture of a run: curves of loss and accuracy, and a sheet of test samples with what the network made of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rml_core.config import remote
from rml_core.config.problem import RunFailed
from rml_core.engine.log import put
from tasks.progress import log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from flows.phases import Outcome
    from rml_core.engine.gallery import Gallery

# Inches of the page, of the curves' height, and points an inch.
WIDTH, CURVES, DPI = 12, 4, 80
# Between pictures, in their heights.
GAP = 0.06
FRAME = "0.6"


def of(outcome: Outcome) -> bytes:
    """The picture, as PNG; it goes beside the logs too."""
    picture = draw(outcome.history, outcome.gallery, outcome.classes, outcome.source)
    if outcome.places.logs is not None:
        put(outcome.places.logs.report, picture, otherwise="; all else that the run writes is there")
    return picture


def put_pictures(outcome: Outcome) -> None:
    """Those of the run and of its prediction, where they belong."""
    if outcome.places.logs is not None:
        of(outcome)
    sections(outcome)


def sections(outcome: Outcome) -> bytes | None:
    """The picture of sections through the assembled prediction, as PNG; it goes beside the prediction too. None: there
    is nothing to be seen, or it cannot be read any more, which is said."""
    path, beside = outcome.places.prediction, outcome.places.sections
    if outcome.seen is None or path is None or beside is None:
        return None
    from flows.cross_sections import sections_of
    from flows.sections_picture import draw as drawn

    test, meaning = outcome.seen
    try:
        picture = drawn(list(sections_of(path, test, meaning)), meaning.classes, meaning.names)
        if isinstance(beside, Path):
            put(beside, picture)
        else:
            with remote.written(beside) as local:
                local.write_bytes(picture)
    except (OSError, RunFailed) as error:
        log.warning(f"there is no picture of sections: {error}")
        return None
    return picture


@dataclass(frozen=True)
class Shown:
    """A sample: pictures side by side, each with its name, and a text above them."""

    panels: dict[str, np.ndarray]
    title: str = ""
    colour: str = "black"

    @property
    def width(self) -> float:
        """In heights; behind several pictures there is room, so that they are seen to belong together."""
        ratios = [each.shape[1] / each.shape[0] for each in self.panels.values()]
        return sum(ratios) + GAP * (len(ratios) + 3 if len(ratios) > 1 else 0)


def draw(history: list[dict[str, Any]], gallery: Gallery, classes: tuple[str, ...], source: str = "") -> bytes:
    """A PNG: curves above, at most 32 samples below. `source`: what the network's output is, `logits` for example."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    half = 0.0 if source == "logits" else 0.5
    pictures = [index for index, sample in enumerate(gallery.inputs) if sample.ndim == 3]
    samples = [_sample(gallery, index, classes, half) for index in pictures]
    columns = 8 if all(len(sample.panels) == 1 for sample in samples) else 4
    rows = -(-len(samples) // columns)
    height = _row_height(samples, WIDTH / columns)
    figure = Figure(figsize=(WIDTH, CURVES + height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    curves: FigureBase = figure
    if rows:
        curves, sheet = figure.subfigures(2, 1, height_ratios=[CURVES, height * rows])  # type: ignore[misc]
        axes = sheet.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, sample in zip(axes, samples, strict=False):
            _show(axis, sample)
    _curves(curves, history)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _row_height(samples: list[Shown], width: float) -> float:
    """Inches that a row takes in which each sample has `width`, as a whole number of points."""
    tallest = max(((width - 0.1) / sample.width for sample in samples), default=0.0)
    lines = max((sample.title.count("\n") for sample in samples), default=0)
    return round((min(max(tallest, 0.4), 3.0) + 0.35 + 0.1 * lines) * DPI) / DPI


def _curves(figure: FigureBase, history: list[dict[str, Any]]) -> None:
    accurate = any(np.isfinite(row.get("accuracy", np.nan)) for row in history)
    losses, *others = figure.subplots(1, 2 if accurate else 1, squeeze=False)[0]
    for key, label in (("train_loss", "training"), ("test_loss", "test")):
        _curve(losses, history, key, label)
    losses.set(title="loss", xlabel="epoch")
    if losses.lines:
        losses.legend()
    for axis in others:
        _curve(axis, history, "accuracy", "test")
        axis.set(title="accuracy", xlabel="epoch")


def _curve(axis: Axes, history: list[dict[str, Any]], key: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    points = [(row["epoch"], row[key]) for row in history if np.isfinite(row.get(key, np.nan))]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        # One epoch is a tick, and not the middle of a part of it.
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        first, last = history[0]["epoch"], history[-1]["epoch"]
        margin = max(0.5, 0.03 * (last - first))
        axis.set_xlim(first - margin, last + margin)


def _show(axis: Axes, sample: Shown) -> None:
    """Pictures of one height, each in a thin frame: black ones that touch could not be told apart."""
    from matplotlib.patches import Rectangle

    left = 0.0
    for name, picture in sample.panels.items():
        width = picture.shape[1] / picture.shape[0]
        axis.imshow(_colour(picture), interpolation="nearest", extent=(left, left + width, 1, 0))
        axis.add_patch(Rectangle((left, 0), width, 1, fill=False, linewidth=0.5, edgecolor=FRAME, clip_on=False))
        if len(sample.panels) > 1:
            axis.text(left + width / 2, -0.04, name, ha="center", va="bottom", fontsize=7)
        left += width + GAP
    axis.set(xlim=(0, sample.width), ylim=(1, 0))
    if sample.title:
        axis.set_title(sample.title, color=sample.colour, fontsize=7 if "\n" in sample.title else 9)


def _sample(gallery: Gallery, index: int, classes: tuple[str, ...], half: float) -> Shown:
    output = gallery.outputs[index]
    target = gallery.targets[index] if gallery.targets else None
    shown = {"input": _picture(gallery.inputs[index])}
    if output.ndim == 1:
        if target is not None and target.ndim:
            return Shown(shown, f"{_numbers(output)}\ntrue {_numbers(target)}")
        predicted = int(output.argmax()) if len(output) > 1 else int(output[0] >= half)
        text = _class(predicted, classes)
        if target is None:
            return Shown(shown, text)
        right = int(target) == predicted
        return Shown(shown, f"{text}, true {_class(int(target), classes)}", "tab:green" if right else "tab:red")
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
    return Shown(shown)


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
