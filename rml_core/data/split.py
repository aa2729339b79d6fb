"""Training samples held out for evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rml_core.config.problem import Problem, Refused
from rml_core.config.seed import generator
from rml_core.data.survey import WHERE, Survey


def split(survey: Survey, fraction: float, seed: int, batch_size: int, where: str = WHERE) -> tuple[Survey, Survey]:
    """(training samples, samples held out for evaluation, in batches of `batch_size`), both in the order they had.

    round(fraction * count) samples are held out, one at least; which ones is drawn from the seed. Where there are
    labels, each class gives its share, to within one sample. Raises `Refused` where none is left on a side.
    """
    count = survey.count
    held = max(1, round(fraction * count))
    if held >= count:
        what = f"{fraction} of {count} training samples: {held} held out leave {max(count - held, 0)} to train on"
        raise Refused([Problem(f"{where}.validation_split", what, "at least one sample on each side")])
    order = generator(seed, "validation_split").permutation(count)
    if survey.labels is not None:
        order = order[np.argsort(np.asarray(survey.labels)[order], kind="stable")]
    # Every count / held-th: of classes that stand one after the other each gives its share.
    places = np.arange(count + 1) * held // count
    chosen = np.zeros(count, bool)
    chosen[order[np.flatnonzero(np.diff(places))]] = True
    test = replace(_part(survey, np.flatnonzero(chosen)), role="test", batch_size=batch_size, warnings=())
    return _part(survey, np.flatnonzero(~chosen)), test


def _part(survey: Survey, indices: np.ndarray) -> Survey:
    kept = indices.tolist()
    return replace(
        survey,
        inputs=tuple(survey.inputs[i] for i in kept),
        names=tuple(survey.names[i] for i in kept),
        targets=None if survey.targets is None else tuple(survey.targets[i] for i in kept),
        labels=None if survey.labels is None else tuple(survey.labels[i] for i in kept),
    )
