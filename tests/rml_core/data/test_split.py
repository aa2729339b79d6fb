"""Samples held out for evaluation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.problem import Refused
from rml_core.data.files import Form, Item
from rml_core.data.split import split
from rml_core.data.survey import Survey


def made(count, labels=None):
    items = tuple(Item(f"/{i}") for i in range(count))
    return Survey(
        "training", items, tuple(map(str, range(count))), items[::-1], labels, None, (1,), None, 4, Form("numpy"),
        warnings=("something",),
    )  # fmt: skip


def test_each_sample_is_on_one_side_with_its_target():
    training, test = split(made(10), 0.3, 0, 7)
    assert (training.count, test.count) == (7, 3)
    assert (training.role, test.role, training.batch_size, test.batch_size) == ("training", "test", 4, 7)
    assert sorted(training.names + test.names, key=int) == [str(i) for i in range(10)]
    for side in (training, test):
        assert side.names == tuple(sorted(side.names, key=int))
        assert [item.file for item in side.inputs] == [f"/{name}" for name in side.names]
        assert side.targets is not None
        assert [item.file for item in side.targets] == [f"/{9 - int(name)}" for name in side.names]
    assert (training.warnings, test.warnings) == (("something",), ())


def test_the_seed_decides():
    names = [split(made(100), 0.2, seed, 1)[1].names for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=200), st.floats(0.01, 0.99), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_class_gives_its_share(labels, fraction, seed):
    count = len(labels)
    wanted = max(1, round(fraction * count))
    survey = made(count, tuple(labels))
    if wanted >= count:
        with pytest.raises(Refused):
            split(survey, fraction, seed, 1)
        return
    training, test = split(survey, fraction, seed, 1)
    assert test.count == wanted
    assert training.labels is not None
    assert test.labels is not None
    of_all, held = Counter(labels), Counter(test.labels)
    for label, there in of_all.items():
        assert abs(held[label] - there * wanted / count) < 1


def test_all_samples_are_drawn_alike():
    """Each of 10 samples is held out in 3 of 10 seeds, to within five standard deviations."""
    held = np.zeros(10)
    for seed in range(1000):
        held[[int(name) for name in split(made(10), 0.3, seed, 1)[1].names]] += 1
    assert np.abs(held - 300).max() < 5 * np.sqrt(1000 * 0.3 * 0.7)


def test_a_side_without_samples():
    with pytest.raises(Refused) as refused:
        split(made(3), 0.9, 0, 1)
    assert str(refused.value) == (
        "neural_network.data.validation_split: 0.9 of 3 training samples: 3 held out leave 0 to train on\n"
        "    allowed: at least one sample on each side"
    )
