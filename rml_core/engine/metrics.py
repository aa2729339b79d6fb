"""What an evaluation measures besides the loss: counts that stay on the device until the pass is over.

Counts of several ranks are added before `result` divides, so that no figure depends on how samples are split.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rml_core.config.target import IGNORED, Target
from rml_core.loss.classes import most_probable

Counts = Mapping[str, "np.ndarray[Any, Any]"]


class Metric(ABC):
    """Counts over a pass; where there is nothing to divide by, a figure is nan."""

    @abstractmethod
    def update(self, output: Tensor, target: Tensor, kept: Tensor | None = None) -> None:
        """Add a batch: output (N, C, *spatial), target and kept as the loss gets them. Does not wait for the device."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """The counts until now; those of several ranks are to be added key by key."""

    @abstractmethod
    def result(self, state: Counts) -> dict[str, Any]:
        """`accuracy`, and figures of the kind, from counts."""


def metrics_for(
    output_shape: tuple[int | None, ...],
    target: Target,
    source: str,
    ignored: int | None = None,
    names: Sequence[str | int] | None = None,
) -> Metric:
    """The metric for outputs (C, *spatial) that are `source` (`Fitted.source`), against `target`.

    `ignored`: a class index in labels that does not count (`LossSection.ignored`); `IGNORED` never does in masks.
    `names`: what the classes are called, by index; None: by their indices.
    """
    if target.kind == "values":
        return Errors()
    threshold = threshold_of(source)
    # A mask of a single pixel, its channel apart, is the class of the sample.
    figures = Regions if target.kind == "mask" and target.shape else Labels
    return figures(output_shape[0] or 1, threshold, IGNORED if target.kind == "mask" else ignored, names)


def threshold_of(source: str) -> float:
    """From where on one output channel that is `source` (`Fitted.source`) means the second of two classes."""
    return {"logits": 0.0, "log_softmax": math.log(0.5)}.get(source, 0.5)


class Classes(Metric):
    """For each class how often it was right, predicted, and there. One channel tells two classes apart, the second
    from `threshold` on."""

    def __init__(self, channels: int, threshold: float, ignored: int | None, names: Sequence[str | int] | None):
        self.channels, self.threshold, self.ignored = channels, threshold, ignored
        self.classes = max(channels, 2)
        # A network may have more outputs than there are classes.
        self.names = [*range(self.classes)] if names is None else [*names, *[None] * self.classes][: self.classes]
        self._counts: Tensor | None = None

    def update(self, output: Tensor, target: Tensor, kept: Tensor | None = None) -> None:
        predicted = (output[:, 0] >= self.threshold).long() if self.channels == 1 else most_probable(output)
        predicted, target = predicted.flatten(), target.flatten()
        kept = torch.ones_like(target, dtype=torch.bool) if self.ignored is None else target != self.ignored
        # What does not count adds 0 to a class that is there: no size depends on the values.
        target = torch.where(kept, target, 0)
        right, counted = ((predicted == target) & kept).long(), kept.long()
        none = torch.zeros(self.classes, dtype=torch.int64, device=target.device)
        places = ((target, right), (predicted, counted), (target, counted))
        counts = torch.stack([none.scatter_add(0, index, ones) for index, ones in places])
        self._counts = counts if self._counts is None else self._counts + counts

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        counts = np.zeros((3, self.classes), np.int64) if self._counts is None else self._counts.cpu().numpy()
        right, predicted, support = counts
        return {"right": right, "predicted": predicted, "support": support}


class Labels(Classes):
    """Accuracy is the fraction of samples whose class is right."""

    def result(self, state: Counts) -> dict[str, Any]:
        right, predicted, support = (np.asarray(state[key]) for key in ("right", "predicted", "support"))
        return {
            "accuracy": float(_ratio(right.sum(), support.sum())),
            "classes": self.names,
            "precision": _ratio(right, predicted).tolist(),
            "recall": _ratio(right, support).tolist(),
            "f1": _ratio(2 * right, predicted + support).tolist(),
            "support": support.tolist(),
        }


class Regions(Classes):
    """Accuracy is Dice, which is F1 over pixels: the foreground's with one channel, else the mean over the classes
    that are in the targets or the predictions; 1 where there is nothing in either."""

    def result(self, state: Counts) -> dict[str, Any]:
        right, predicted, support = (np.asarray(state[key]) for key in ("right", "predicted", "support"))
        dice = _ratio(2 * right, predicted + support)
        judged = dice[1:] if self.channels == 1 else dice
        there = judged[~np.isnan(judged)]
        return {
            "accuracy": float(there.mean()) if there.size else 1.0,
            "classes": self.names,
            "dice": dice.tolist(),
            "iou": _ratio(right, predicted + support - right).tolist(),
            "precision": _ratio(right, predicted).tolist(),
            "recall": _ratio(right, support).tolist(),
            "support": support.tolist(),
        }


class Errors(Metric):
    """Mean absolute error and root mean square error over all numbers of all samples; no accuracy."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._count: Tensor | int = 0

    def update(self, output: Tensor, target: Tensor, kept: Tensor | None = None) -> None:
        difference = output.to(torch.promote_types(output.dtype, torch.float32)) - target
        if kept is not None:
            difference = torch.where(kept.unsqueeze(1), difference, 0)
        sums = torch.stack([difference.abs().sum(dtype=torch.float64), difference.square().sum(dtype=torch.float64)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count = self._count + (difference.numel() if kept is None else kept.sum() * difference.shape[1])

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        sums = np.zeros(2) if self._sums is None else self._sums.cpu().numpy()
        return {"absolute": sums[0], "squared": sums[1], "count": np.array(int(self._count))}

    def result(self, state: Counts) -> dict[str, Any]:
        return {
            "accuracy": math.nan,
            "mae": float(_ratio(state["absolute"], state["count"])),
            "rmse": float(np.sqrt(_ratio(state["squared"], state["count"]))),
        }


def _ratio(part: Any, whole: Any) -> np.ndarray[Any, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
