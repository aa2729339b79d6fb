"""Padding and fill have no part in any loss: what is left is the loss of the bare voxels, in NumPy and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rml_core.config.target import IGNORED, Target

Floats = NDArray[np.float64]

GAMMA, ALPHA, SMOOTH = 1.5, 0.3, 1e-3


def mean(each: Floats, weight: Floats) -> float:
    """each (M, C) of voxels."""
    return float((each * weight).sum() / (weight.sum() * len(each)))


def mse(x: Floats, t: Floats, w: Floats) -> float:
    return mean((x - t) ** 2, w)


def bce(x: Floats, t: Floats, w: Floats) -> float:
    return mean(-(t * np.log(x) + (1 - t) * np.log(1 - x)), w)


def regions(of_sums: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats, Floats], float]:
    def loss(x: Floats, t: Floats, w: Floats) -> float:
        each = of_sums((x * t).sum(0), x.sum(0) + t.sum(0))
        if x.shape[1] == 1:
            return float(each[0])
        there = (t.sum(0) > 0) | np.isin(np.arange(x.shape[1]), x.argmax(1))
        return float((each * w * there).sum() / (w * there).sum())

    return loss


def focal(x: Floats, t: Floats, w: Floats) -> float:
    """Yes or no of each channel."""
    yes, no = -ALPHA * (1 - x) ** GAMMA * np.log(x), -(1 - ALPHA) * x**GAMMA * np.log(1 - x)
    return mean(t * yes + (1 - t) * no, w)


def focal_of_one(x: Floats, t: Floats, w: Floats) -> float:
    """Of a distribution over channels."""
    alpha = np.array([1 - ALPHA, *[ALPHA] * (x.shape[1] - 1)])
    total = (t * w * alpha * (1 - x) ** GAMMA * -np.log(x)).sum()
    return float(total / ((t * w).sum() if len(set(w)) > 1 else len(x)))


def dice(overlap: Floats, total: Floats) -> Floats:
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


def jaccard(overlap: Floats, total: Floats) -> Floats:
    return 1 - (overlap + SMOOTH) / (total - overlap + SMOOTH)


# Name, what the network gives, keys, formula.
OF_VALUES: list[tuple[str, str, dict[str, Any], Callable[[Floats, Floats, Floats], float]]] = [
    ("MSE", "probabilities", {}, mse),
    ("BCE", "sigmoid", {}, bce),
    ("BCE", "logits", {}, bce),
    ("Dice", "sigmoid", {"smooth": SMOOTH}, regions(dice)),
    ("Dice", "softmax", {"smooth": SMOOTH}, regions(dice)),
    ("Dice", "logits", {"smooth": SMOOTH}, regions(dice)),
    ("Jaccard", "log_softmax", {"smooth": SMOOTH}, regions(jaccard)),
    ("Focal", "sigmoid", {"gamma": GAMMA, "alpha": ALPHA}, focal),
    ("Focal", "softmax", {"gamma": GAMMA, "alpha": ALPHA}, focal_of_one),
    ("Focal", "logits", {"gamma": GAMMA, "alpha": ALPHA}, focal_of_one),
]
# Of softmax over channels in BCE and sigmoid over several in the others the formula's numbers are the output's own.
SINGLE = {"softmax", "log_softmax"}


def boxes(rng: np.random.Generator, samples: int, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """kept (N, *size): a box of each sample, as slices have it; of the first one something is real."""
    kept = np.zeros((samples, *size), bool)
    for sample in kept:
        ends = [np.sort(rng.integers(0, length + 1, 2)) for length in size]
        sample[tuple(slice(*each) for each in ends)] = True
    kept[(0, *(0 for _ in size))] = True
    return kept


def bare(array: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """(N, C, *spatial) as (1, C, M): voxels that are real."""
    return array.movedim(1, -1)[kept].T.unsqueeze(0)


def given_as(logits: torch.Tensor, source: str) -> torch.Tensor:
    if source == "logits":
        return logits
    if source == "log_softmax":
        return logits.log_softmax(1)
    return logits.softmax(1) if source == "softmax" else logits.sigmoid()


def formula_takes(logits: torch.Tensor, name: str, source: str) -> Floats:
    """(M, C): probabilities, of logits (1, C, M)."""
    one = logits.shape[1] == 1
    if source == "logits":
        p = logits.sigmoid() if one or name == "BCE" else logits.softmax(1)
    else:
        p = logits.softmax(1) if source in SINGLE else logits.sigmoid()
    return np.asarray(p[0].T.numpy())


SEEDS, A_FEW = st.integers(0, 9999), st.integers(1, 3)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@pytest.mark.parametrize("case", OF_VALUES, ids=lambda case: f"{case[0]}-{case[1]}")
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, samples=A_FEW, channels=A_FEW, size=SIZES, weigh=st.booleans())
def test_values(built: Any, case: Any, seed: int, samples: int, channels: int, size: list[int], weigh: bool) -> None:
    name, source, keys, formula = case
    channels = max(channels, 2 if source in SINGLE or formula is focal_of_one else 1)
    rng = np.random.default_rng(seed)
    kept = torch.tensor(boxes(rng, samples, tuple(size)))
    logits = torch.tensor(rng.standard_normal((samples, channels, *size)))
    target = torch.tensor(rng.uniform(0, 1, (samples, channels, *size)))
    weight = rng.uniform(0.1, 2, channels) if weigh else np.ones(channels)
    keys = keys | ({"weight": weight.tolist()} if weigh else {})
    shape = Target("values", (channels, *size))
    objective = built(name, source, (channels, *size), shape, **keys)

    output = given_as(logits, source).detach().clone().requires_grad_()
    loss = objective(output, target, kept)
    expected = formula(formula_takes(bare(logits, kept), name, source), bare(target, kept)[0].T.numpy(), weight)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)

    (gradient,) = torch.autograd.grad(loss, output)
    alone = bare(output.detach(), kept).requires_grad_()
    (of_bare,) = torch.autograd.grad(objective(alone, bare(target, kept)), alone)
    torch.testing.assert_close(bare(gradient, kept), of_bare, rtol=1e-9, atol=1e-12)
    assert not bare(gradient, ~kept).any()


OF_CLASSES = [
    ("NLL", "log_softmax"),
    ("NLL", "logits"),
    ("BCE", "sigmoid"),
    ("MSE", "probabilities"),
    ("Dice", "softmax"),
    ("Dice", "logits"),
    ("Jaccard", "softmax"),
    ("Focal", "logits"),
    ("Focal", "softmax"),
    ("Focal", "sigmoid"),
    ("Lovasz", "softmax"),
    ("Lovasz", "logits"),
]


@pytest.mark.parametrize(("name", "source"), OF_CLASSES)
@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, samples=A_FEW, channels=A_FEW, size=SIZES, weigh=st.booleans())
def test_masks(
    built: Any, name: str, source: str, seed: int, samples: int, channels: int, size: list[int], weigh: bool
) -> None:
    """Their padding and fill is IGNORED; against the same loss of nothing but what is real."""
    elementwise = name in ("BCE", "MSE", "Focal")
    channels = max(channels, 2 if source in SINGLE or name == "NLL" else 1)
    rng = np.random.default_rng(seed)
    kept = torch.tensor(boxes(rng, samples, tuple(size)))
    logits = torch.tensor(rng.standard_normal((samples, channels, *size)))
    labels = torch.tensor(rng.integers(0, max(channels, 2), (samples, *size)))
    weights = {"weight": rng.uniform(0.1, 2, max(channels, 2 if elementwise else 1)).tolist()} if weigh else {}
    objective = built(name, source, (channels, *size), Target("mask", tuple(size)), **weights)
    output = given_as(logits, source).detach().clone().requires_grad_()
    alone = bare(output.detach(), kept).requires_grad_()
    loss, expected = objective(output, labels.where(kept, IGNORED)), objective(alone, labels[kept].unsqueeze(0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    (gradient,), (of_bare,) = torch.autograd.grad(loss, output), torch.autograd.grad(expected, alone)
    torch.testing.assert_close(bare(gradient, kept), of_bare, rtol=1e-9, atol=1e-12)
    assert not bare(gradient, ~kept).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("case", OF_VALUES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_where_nothing_is_real_the_loss_is_0(built: Any, case: Any, weigh: bool, dtype: torch.dtype) -> None:
    name, source, keys, _ = case
    objective = built(name, source, (2, 3), Target("values", (2, 3)), **keys, **({"weight": [1, 2]} if weigh else {}))
    output = given_as(torch.linspace(-1, 1, 12).view(2, 2, 3), source).to(dtype).requires_grad_()
    loss = objective(output, torch.ones(2, 2, 3), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not output.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", OF_VALUES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_half_precision_is_computed_in_single(built: Any, case: Any, dtype: torch.dtype) -> None:
    name, source, keys, _ = case
    rng = np.random.default_rng(1)
    objective = built(name, source, (2, 30), Target("values", (2, 30)), **keys)
    narrow = given_as(torch.tensor(rng.standard_normal((4, 2, 30))), source).to(dtype)
    target, kept = torch.tensor(rng.uniform(0, 1, (4, 2, 30)), dtype=torch.float32), torch.rand(4, 30) < 0.5
    loss = objective(narrow, target, kept)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(objective(narrow.double(), target.double(), kept).item(), rel=1e-5)


@pytest.mark.parametrize("case", OF_VALUES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_twice_differentiable(built: Any, case: Any) -> None:
    name, source, keys, _ = case
    if name == "BCE" and source != "logits":
        source = "logits"
    rng = np.random.default_rng(2)
    objective = built(name, source, (2, 4), Target("values", (2, 4)), **keys)
    output = given_as(torch.tensor(rng.standard_normal((2, 2, 4))), source).requires_grad_()
    target, kept = torch.tensor(rng.uniform(0, 1, (2, 2, 4))), torch.tensor(boxes(rng, 2, (4,)))
    assert torch.autograd.gradgradcheck(lambda x: objective(x, target, kept), output)


@pytest.mark.parametrize("case", OF_VALUES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_all_real_is_the_loss_without_it(built: Any, case: Any) -> None:
    name, source, keys, _ = case
    rng = np.random.default_rng(3)
    objective = built(name, source, (2, 5), Target("values", (2, 5)), **keys)
    output = given_as(torch.tensor(rng.standard_normal((3, 2, 5))), source)
    target = torch.tensor(rng.uniform(0, 1, (3, 2, 5)))
    everywhere = objective(output, target, torch.ones(3, 5, dtype=torch.bool)).item()
    assert everywhere == pytest.approx(objective(output, target).item(), rel=1e-14)


@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("case", OF_VALUES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_nan_and_infinity_count_for_nothing_where_values_are_not_real(built: Any, case: Any, weigh: bool) -> None:
    name, source, keys, _ = case
    rng = np.random.default_rng(4)
    weights = {"weight": [1, 2]} if weigh else {}
    objective = built(name, source, (2, 6), Target("values", (2, 6)), **keys, **weights)
    output = given_as(torch.tensor(rng.standard_normal((3, 2, 6))), source)
    target, kept = torch.tensor(rng.uniform(0, 1, (3, 2, 6))), torch.tensor(rng.random((3, 6)) < 0.5)
    kept[0, 0], kept[0, 1] = True, False
    expected = output.clone().requires_grad_()
    objective(expected, target, kept).backward()
    for nothing in (torch.nan, torch.inf):
        broken = output.masked_fill(~kept.unsqueeze(1), nothing).requires_grad_()
        loss = objective(broken, target.masked_fill(~kept.unsqueeze(1), nothing), kept)
        loss.backward()
        assert loss.item() == objective(expected, target, kept).item()
        torch.testing.assert_close(broken.grad, expected.grad, rtol=0, atol=0)


@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "source"), OF_CLASSES)
def test_nan_counts_for_nothing_where_a_mask_is_ignored(
    built: Any, name: str, source: str, channels: int, weigh: bool
) -> None:
    if source in SINGLE or name == "NLL":
        channels = 3
    rng = np.random.default_rng(5)
    number = max(channels, 2 if name in ("BCE", "MSE", "Focal") else 1)
    objective = built(
        name, source, (channels, 6), Target("mask", (6,)), **({"weight": [1, 2, 3][:number]} if weigh else {})
    )
    output = given_as(torch.tensor(rng.standard_normal((3, channels, 6))), source)
    target, ignored = torch.tensor(rng.integers(0, max(channels, 2), (3, 6))), torch.tensor(rng.random((3, 6)) < 0.5)
    target[ignored] = IGNORED
    target[0, 0], target[0, 1] = 1, IGNORED
    ignored = (target == IGNORED).unsqueeze(1)
    expected, broken = output.clone().requires_grad_(), output.masked_fill(ignored, torch.nan).requires_grad_()
    loss = objective(broken, target)
    loss.backward()
    objective(expected, target).backward()
    assert loss.item() == objective(expected, target).item()
    torch.testing.assert_close(broken.grad, expected.grad, rtol=0, atol=0)
