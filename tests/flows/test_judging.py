"""Which of champion and challenger is better: metrics by name, and the rules with their nan values."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flows.judging import Metric, judged, problem_of, usual
from rml_core.config.problem import RunFailed
from rml_core.config.target import Target

ACCURACY, LOSS = Metric("accuracy"), Metric("loss")
NUMBERS = st.floats(-1e6, 1e6)
ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(ours=NUMBERS, theirs=NUMBERS, margin=st.floats(0, 10))
@settings(max_examples=100, deadline=None)
def test_better_has_to_be_by_more_than_the_margin(ours: float, theirs: float, margin: float):
    assume(abs(ours - theirs - margin) > 2e-9 * max(abs(ours), abs(theirs)))
    assert judged(ACCURACY, margin, ours, theirs).promoted == (ours - theirs > margin)
    # Of losses the smaller is better: the same question the other way round.
    assert judged(LOSS, margin, ours, theirs).promoted == judged(ACCURACY, margin, -ours, -theirs).promoted


@given(ours=st.integers(0, 10**6), theirs=st.integers(0, 10**6), more=st.integers(-2, 2), scale=st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_what_is_equal_to_the_margin_in_decimals_is_not_more(ours: int, theirs: int, more: int, scale: int):
    """However floating point rounds it: 0.8 - 0.7 is more than 0.1 there."""
    margin = max(ours - theirs + more, 0)
    verdict = judged(ACCURACY, margin / 10**scale, ours / 10**scale, theirs / 10**scale)
    assert verdict.promoted == (ours - theirs > margin)


@given(ours=ANY, theirs=st.none() | ANY, margin=st.floats(0, 10), unfit=st.sampled_from(["", "other classes"]))
@settings(max_examples=100, deadline=None)
def test_what_is_no_number_is_never_champion_and_always_beaten(
    ours: float, theirs: float | None, margin: float, unfit: str
):
    verdict = judged(ACCURACY, margin, ours, theirs, unfit)
    if not math.isfinite(ours):
        assert not verdict.promoted
    elif unfit or theirs is None or not math.isfinite(theirs):
        assert verdict.promoted


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (judged(ACCURACY, 0, 0.9, None), "the first one: there was no champion"),
        (judged(ACCURACY, 0, math.nan, None), "the challenger's accuracy is nan"),
        (judged(LOSS, 0, 0.5, math.inf), "the champion's loss is inf"),
        (judged(LOSS, 0, 0.5, 0.75), "loss 0.5, the champion's 0.75: better by 0.25"),
        (judged(LOSS, 0.125, 0.5, 0.75), "loss 0.5, the champion's 0.75: better by 0.25, more than 0.125"),
        (
            judged(LOSS, 0.25, 0.5, 0.75),
            "loss 0.5, the champion's 0.75: better by 0.25, not more than the margin of 0.25",
        ),
        (
            judged(ACCURACY, 0.1, 0.8, 0.7),
            "accuracy 0.8, the champion's 0.7: better by 0.1, not more than the margin of 0.1",
        ),
        (judged(ACCURACY, 0, 0.5, 0.75), "accuracy 0.5, the champion's 0.75: worse by 0.25"),
        (judged(ACCURACY, 0, 0.75, 0.75), "accuracy 0.75, the champion's 0.75: no better"),
        (
            judged(ACCURACY, 0, 0.5, None, "other classes"),
            "the champion cannot be evaluated on today's test data: other classes",
        ),
    ],
)
def test_a_verdict_says_why(verdict: object, why: str):
    assert verdict.why == why  # type: ignore[attr-defined]


def test_a_metric_of_a_class_is_that_of_its_name():
    metric = Metric.named("Recall:cats")
    assert (str(metric), metric.larger_is_better) == ("recall:cats", True)
    assert metric.of({"classes": ["birds", "cats", None], "recall": [0.25, 0.75, 0.0]}) == 0.75
    assert Metric.named("dice:255").of({"classes": [0, 255], "dice": [1.0, 0.5]}) == 0.5
    assert math.isnan(Metric("mae").of({"accuracy": 1.0}))
    with pytest.raises(RunFailed, match=r'^metric recall:cats: there is no class "cats"; there are birds, dogs$'):
        metric.of({"classes": ["birds", "dogs"], "recall": [0.25, 0.75]})


def test_a_metric_that_the_targets_do_not_have_is_a_problem():
    labels, masks, values = Target("labels", (), 2), Target("mask", (4, 4)), Target("values", (1, 4, 4))
    assert [str(usual(target)) for target in (labels, masks, values)] == ["accuracy", "accuracy", "loss"]
    assert problem_of(Metric("rmse"), values, ()) is None
    assert problem_of(Metric.named("dice:255"), masks, ()) is None
    assert problem_of(Metric.named("f1:cats"), labels, ("cats", "dogs")) is None
    assert str(problem_of(ACCURACY, values, ())) == (
        "metric: there is no accuracy where the targets are values\n    allowed: loss, mae, rmse"
    )
    assert str(problem_of(Metric.named("f1:cat"), labels, ("cats", "dogs"))) == (
        'metric: there is no class "cat"\n    allowed: cats, dogs\n    did you mean "cats"?'
    )
