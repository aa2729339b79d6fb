"""Whether a challenger is better than the champion: by one figure, and by more than a margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rml_core.config.names import wrong
from rml_core.config.problem import Problem, RunFailed, listed, nearest, shown
from rml_core.config.target import Target

# Figures of a whole evaluation; True: a larger one is better.
WHOLE = {"accuracy": True, "loss": False, "mae": False, "rmse": False}
# Figures of each class, of all of which larger ones are better: `recall:cats`.
OF_CLASS = ("precision", "recall", "f1", "dice", "iou")
# Of a figure's own size: 0.8 - 0.7 is more than 0.1 in floating point.
ROUNDING = 1e-9
ALLOWED = f"{listed(WHOLE)}, or one of a class, as recall:cats: {listed(OF_CLASS)}"


@dataclass(frozen=True)
class Metric:
    """`of_class`: the name of a class; None: the figure is that of the whole evaluation."""

    figure: str
    of_class: str | None = None

    def __str__(self) -> str:
        return self.figure if self.of_class is None else f"{self.figure}:{self.of_class}"

    @property
    def larger_is_better(self) -> bool:
        return WHOLE.get(self.figure, True)

    @classmethod
    def named(cls, given: str) -> Metric:
        """Raises a pydantic error where there is no such metric."""
        figure, colon, name = given.partition(":")
        figure = figure.casefold()
        if figure in OF_CLASS and name:
            return cls(figure, name)
        if figure in OF_CLASS:
            raise wrong(f"{shown(given)} is of a class, and none is named", f"{figure}:NAME, as {figure}:cats")
        if figure not in WHOLE or colon:
            raise wrong(f"{shown(given)} is no metric", ALLOWED, nearest(figure, [*WHOLE, *OF_CLASS]))
        return cls(figure)

    def is_in(self, figures: Mapping[str, Any]) -> bool:
        """Whether an evaluation has the class."""
        return self.of_class is None or self.of_class in _classes(figures)

    def of(self, figures: Mapping[str, Any]) -> float:
        """Raises `RunFailed` where an evaluation has no such class."""
        if self.of_class is None:
            return float(figures.get(self.figure, math.nan))
        classes = _classes(figures)
        if self.of_class not in classes:
            raise RunFailed(f"metric {self}: there is no class {shown(self.of_class)}; there are {listed(classes)}")
        return float(figures[self.figure][classes.index(self.of_class)])


def _classes(figures: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in figures.get("classes", ()) if name is not None]


def usual(target: Target) -> Metric:
    """What is compared where nothing is said: the accuracy where there is one."""
    return Metric("loss" if target.kind == "values" else "accuracy")


def problem_of(metric: Metric, target: Target, classes: tuple[str, ...]) -> Problem | None:
    """Why an evaluation against `target` does not give the metric; None: it does, as far as is known before it."""
    if target.kind == "values":
        known: tuple[str, ...] = ("loss", "mae", "rmse")
    elif target.kind == "mask" and target.shape:
        known = ("accuracy", "loss", "dice", "iou", "precision", "recall")
    else:
        known = ("accuracy", "loss", "precision", "recall", "f1")
    if metric.figure not in known:
        kind = "values" if target.kind == "values" else "masks" if target.shape else "classes"
        return Problem("metric", f"there is no {metric.figure} where the targets are {kind}", listed(known))
    return problem_of_class(metric, classes) if target.kind == "labels" else None


def problem_of_class(metric: Metric, classes: tuple[str, ...]) -> Problem | None:
    """Why the metric is of none of the `classes`; None: it is of one of them, or of a whole evaluation."""
    if metric.of_class is None or metric.of_class in classes:
        return None
    what = f"there is no class {shown(metric.of_class)}"
    return Problem("metric", what, listed(classes), nearest(metric.of_class, classes))


@dataclass(frozen=True)
class Verdict:
    """`why`: one line, for people."""

    promoted: bool
    why: str


def judged(metric: Metric, margin: float, challenger: float, champion: float | None, unfit: str = "") -> Verdict:
    """The rules, in their order.

    A challenger whose figure is no finite number never becomes champion. Without a champion, or where the champion's
    figure is none, or where it cannot be evaluated on today's test data (`unfit` says why), a challenger that has one
    does. Otherwise it has to be better by more than `margin`; equal is not better, and what differs from the margin by
    the rounding of the figures alone is equal to it.
    """
    if not math.isfinite(challenger):
        return Verdict(False, f"the challenger's {metric} is {challenger:.6g}")
    if unfit:
        return Verdict(True, f"the champion cannot be evaluated on today's test data: {unfit}")
    if champion is None:
        return Verdict(True, "the first one: there was no champion")
    if not math.isfinite(champion):
        return Verdict(True, f"the champion's {metric} is {champion:.6g}")
    gain = challenger - champion if metric.larger_is_better else champion - challenger
    figures = f"{metric} {challenger:.6g}, the champion's {champion:.6g}"
    if gain - margin > ROUNDING * max(abs(challenger), abs(champion)):
        return Verdict(True, f"{figures}: better by {gain:.3g}" + (f", more than {margin:g}" if margin else ""))
    if gain > 0:
        return Verdict(False, f"{figures}: better by {gain:.3g}, not more than the margin of {margin:g}")
    return Verdict(False, f"{figures}: " + (f"worse by {-gain:.3g}" if gain < 0 else "no better"))
