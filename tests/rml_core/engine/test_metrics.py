import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from rml_core.config.target import IGNORED, Target
from rml_core.engine.metrics import metrics_for

LABELS, MASK = Target("labels", ()), Target("mask", (5, 6))


def measured(metric, batches):
    for output, target in batches:
        metric.update(torch.as_tensor(output), torch.as_tensor(target))
    return metric.result(metric.state())


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 40))
def test_labels_are_scikit_learns(seed, classes, n):
    rng = np.random.default_rng(seed)
    output, target = rng.standard_normal((n, classes)), rng.integers(0, classes, n)
    metric = metrics_for((classes,), LABELS, "log_softmax")
    figures = measured(metric, [(output[: n // 2], target[: n // 2]), (output[n // 2 :], target[n // 2 :])])
    predicted = output.argmax(1)
    assert figures["accuracy"] == pytest.approx(sklearn.accuracy_score(target, predicted))
    options = {"labels": range(classes), "zero_division": np.nan}
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(target, predicted, **options)
    assert figures["precision"] == pytest.approx(precision.tolist(), nan_ok=True)
    assert figures["recall"] == pytest.approx(recall.tolist(), nan_ok=True)
    assert figures["f1"] == pytest.approx(f1.tolist(), nan_ok=True)
    assert figures["support"] == support.tolist()
    assert figures["classes"] == list(range(classes))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 5))
def test_masks_are_scikit_learns_f1_over_the_classes_that_are_there(seed, classes, present):
    rng = np.random.default_rng(seed)
    output = rng.standard_normal((4, classes, 5, 6))
    target = rng.integers(IGNORED, min(present, classes), (4, 5, 6))
    figures = measured(
        metrics_for((classes, 5, 6), MASK, "softmax"), [(output[:3], target[:3]), (output[3:], target[3:])]
    )
    kept = target != IGNORED
    t, p = target[kept], output.argmax(1)[kept]
    there = sorted(set(t) | set(p))
    expected = sklearn.f1_score(t, p, labels=there, average="macro", zero_division=0)
    assert figures["accuracy"] == pytest.approx(expected)
    iou = sklearn.jaccard_score(t, p, labels=there, average=None, zero_division=0)
    assert [figures["iou"][c] for c in there] == pytest.approx(iou.tolist())
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        t, p, labels=range(classes), zero_division=np.nan
    )
    for name, expected in {"precision": precision, "recall": recall, "dice": f1, "support": support}.items():
        assert figures[name] == pytest.approx(expected.tolist(), nan_ok=True), name
    assert figures["classes"] == list(range(classes))
    assert all(math.isnan(figures["dice"][c]) for c in range(classes) if c not in there)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("sigmoid", [0.5, 0.49, 0.9, 0.1]),
        ("probabilities", [0.5, 0.49, 0.9, 0.1]),
        ("logits", [0.0, -0.01, 3.0, -3.0]),
        ("log_softmax", np.log([0.51, 0.49, 0.9, 0.1])),
    ],
)
def test_one_output_is_the_second_class_from_one_half_on(source, output):
    metric = metrics_for((1,), Target("labels", (), 2), source)
    figures = measured(metric, [(np.array(output)[:, None], np.array([1, 1, 1, 0]))])
    assert figures.pop("f1") == pytest.approx([2 / 3, 0.8])
    assert figures == {
        "accuracy": 0.75, "classes": [0, 1], "precision": [0.5, 1.0], "recall": [1.0, 2 / 3], "support": [1, 3],
    }  # fmt: skip


def test_one_channel_is_the_dice_of_the_foreground():
    rng = np.random.default_rng(1)
    output, target = rng.uniform(size=(3, 1, 5, 6)), rng.integers(0, 2, (3, 5, 6))
    figures = measured(metrics_for((1, 5, 6), MASK, "sigmoid"), [(output, target)])
    expected = sklearn.f1_score(target.ravel(), (output >= 0.5).ravel())
    assert figures["accuracy"] == pytest.approx(expected)
    assert figures["dice"][1] == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_in_either_is_one(channels):
    output, target = np.zeros((2, channels, 5, 6)), np.full((2, 5, 6), IGNORED)
    assert measured(metrics_for((channels, 5, 6), MASK, "sigmoid"), [(output, target)])["accuracy"] == 1
    assert measured(metrics_for((channels, 5, 6), MASK, "sigmoid"), [])["accuracy"] == 1


def test_an_empty_foreground_that_is_left_empty_is_one():
    output, target = np.zeros((2, 1, 5, 6)), np.zeros((2, 5, 6), np.int64)
    figures = measured(metrics_for((1, 5, 6), MASK, "sigmoid"), [(output, target)])
    assert figures["accuracy"] == 1
    assert figures["dice"] == pytest.approx([1, math.nan], nan_ok=True)


def test_a_label_to_ignore_does_not_count():
    output, target = np.eye(3)[[0, 1, 2, 2]], np.array([0, 0, 2, 1])
    figures = measured(metrics_for((3,), LABELS, "softmax", ignored=1), [(output, target)])
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["support"] == [2, 0, 1]


@pytest.mark.parametrize(
    ("channels", "target", "names", "classes"),
    [
        (2, LABELS, ("cats", "dogs"), ["cats", "dogs"]),
        (1, LABELS, ("cats", "dogs"), ["cats", "dogs"]),
        # The values in the files of masks.
        (3, MASK, (0, 128, 255), [0, 128, 255]),
        (1, MASK, (0, 255), [0, 255]),
        (1, MASK, None, [0, 1]),
        # More outputs than classes.
        (3, MASK, (0, 255), [0, 255, None]),
    ],
)
def test_figures_of_classes_are_named(channels, target, names, classes):
    metric = metrics_for((channels, 5, 6)[: len(target.shape) + 1], target, "softmax", names=names)
    assert measured(metric, [])["classes"] == classes


def test_no_samples_have_no_accuracy():
    assert math.isnan(measured(metrics_for((3,), LABELS, "softmax"), [])["accuracy"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_are_scikit_learns(dtype):
    rng = np.random.default_rng(2)
    output = torch.tensor(rng.standard_normal((7, 2, 3)), dtype=dtype)
    target = torch.tensor(
        rng.standard_normal((7, 2, 3)), dtype=torch.float64 if dtype == torch.float64 else torch.float32
    )
    metric = metrics_for((2, 3), Target("values", (2, 3)), "probabilities")
    figures = measured(metric, [(output[:4], target[:4]), (output[4:], target[4:])])
    flat = target.double().flatten(), output.double().flatten()
    assert math.isnan(figures["accuracy"])
    assert figures["mae"] == pytest.approx(sklearn.mean_absolute_error(*flat), rel=1e-6)
    assert figures["rmse"] == pytest.approx(sklearn.root_mean_squared_error(*flat), rel=1e-6)


@pytest.mark.parametrize("everywhere", [False, True])
def test_values_count_where_they_are_kept(everywhere):
    rng = np.random.default_rng(3)
    output, target = (torch.tensor(rng.standard_normal((7, 2, 3, 4))) for _ in range(2))
    kept = torch.tensor(rng.random((7, 3, 4)) < 0.5)
    kept[0] = False
    metric = metrics_for((2, 3, 4), Target("values", (2, 3, 4)), "probabilities")
    with torch.inference_mode():
        metric.update(output[:3], target[:3], kept[:3])
        # Where a batch is whole, it may say so by saying nothing.
        metric.update(output[3:], target[3:], None if everywhere else kept[3:])
    if everywhere:
        kept[3:] = True
    flat = [each.movedim(1, -1)[kept].numpy().ravel() for each in (target, output)]
    state = metric.state()
    assert state["count"] == len(flat[0])
    figures = metric.result(state)
    assert figures["mae"] == pytest.approx(sklearn.mean_absolute_error(*flat), rel=1e-12)
    assert figures["rmse"] == pytest.approx(sklearn.root_mean_squared_error(*flat), rel=1e-12)


def test_nan_and_infinity_count_for_nothing_where_values_are_not_real():
    metric = metrics_for((1, 4), Target("values", (1, 4)), "")
    output, target = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    output[0, 0, 2:], target[0, 0, 3] = torch.tensor([torch.nan, torch.inf]), torch.nan
    metric.update(output, target, torch.tensor([[True, True, False, False]]))
    figures = metric.result(metric.state())
    assert (figures["mae"], figures["rmse"]) == (1, 1)


def test_where_no_value_is_kept_there_are_no_errors():
    metric = metrics_for((1, 2), Target("values", (1, 2)), "probabilities")
    metric.update(torch.ones(3, 1, 2), torch.zeros(3, 1, 2), torch.zeros(3, 2, dtype=torch.bool))
    figures = metric.result(metric.state())
    assert math.isnan(figures["mae"])
    assert math.isnan(figures["rmse"])


@pytest.mark.parametrize(
    ("metric", "output", "target"),
    [
        (lambda: metrics_for((3,), LABELS, "softmax"), np.eye(3), np.array([0, 2, 2])),
        (lambda: metrics_for((1, 2), Target("values", (1, 2)), ""), np.ones((3, 1, 2)), np.zeros((3, 1, 2))),
    ],
)
def test_the_counts_of_ranks_add_up(metric, output, target):
    ranks = [metric(), metric()]
    for i, rank in enumerate(ranks):
        rank.update(torch.as_tensor(output[i::2]), torch.as_tensor(target[i::2]))
    states = [pickle.loads(pickle.dumps(rank.state())) for rank in ranks]
    merged = {key: states[0][key] + states[1][key] for key in states[0]}
    whole = measured(metric(), [(output, target)])
    for name, figure in metric().result(merged).items():
        assert figure == pytest.approx(whole[name], nan_ok=True)


def test_inference_mode_and_not():
    metric = metrics_for((3,), LABELS, "softmax")
    with torch.inference_mode():
        metric.update(torch.eye(3), torch.arange(3))
    metric.update(torch.eye(3), torch.arange(3))
    assert metric.result(metric.state())["support"] == [2, 2, 2]
