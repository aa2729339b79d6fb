import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.section import parse
from rml_core.config.target import IGNORED, Target
from rml_core.loss import LOSSES, Fitted

SHAPE = (6, 7)
SHAPES = {1: (11,), 2: SHAPE, 3: (2, 3, 4)}
MASK = Target("mask", SHAPE)
BOTH = pytest.mark.parametrize("name", ["Dice", "Jaccard"])


def region(name, source, channels, target=MASK, **keys):
    section = parse(LOSSES[name], {"function": name, **keys}, "")
    shape = target.shape if target.kind != "values" else target.shape[1:]
    return section.build(Fitted(source), (channels, *shape), target)


def formula(name, both, p, t, smooth):
    """The page's, of sum(p t), sum p, sum t."""
    if name == "Dice":
        return 1 - (2 * both + smooth) / (p + t + smooth)
    return 1 - (both + smooth) / (p + t - both + smooth)


def by_hand(name, p, t, smooth=1e-6, weight=None, ignored=IGNORED):
    """Class by class: p (N, C, ...) probabilities, t (N, ...) class indices."""
    channels = p.shape[1]
    p, t = np.moveaxis(p, 1, -1).reshape(-1, channels), t.ravel()
    p, t = p[t != ignored], t[t != ignored]
    losses, weights = [], []
    for c in range(channels):
        mine = t == (c if channels > 1 else 1)
        if channels > 1 and not mine.any() and not (p.argmax(1) == c).any():
            continue
        losses.append(formula(name, p[mine, c].sum(), p[:, c].sum(), mine.sum(), smooth))
        weights.append(1 if weight is None else weight[c])
    return np.average(losses, weights=weights)


@BOTH
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    rank=st.integers(1, 3),
    channels=st.integers(1, 5),
    present=st.integers(1, 5),
    smooth=st.sampled_from([0.0, 1e-6, 1.0]),
    ignored=st.booleans(),
    weighted=st.booleans(),
)
def test_it_is_the_formula(name, seed, rank, channels, present, smooth, ignored, weighted):
    rng, shape = np.random.default_rng(seed), SHAPES[rank]
    classes = max(channels, 2)
    logits = torch.tensor(rng.standard_normal((2, channels, *shape)) * 3)
    t = rng.integers(IGNORED if ignored else 0, min(present, classes), (2, *shape))
    weight = list(rng.uniform(0.1, 2, channels)) if weighted else None
    p = logits.sigmoid() if channels == 1 else logits.softmax(1)
    loss = region(name, "logits", channels, Target("mask", shape), smooth=smooth, weight=weight)
    expected = by_hand(name, p.numpy(), t, smooth, weight)
    assert loss(logits, torch.tensor(t)).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
@pytest.mark.parametrize("smooth", [1e-6, 1.0])
def test_it_is_monais_where_every_class_is_there(name, channels, shape, smooth):
    """Values and gradients; monai writes the Jaccard loss as twice the overlap over twice the union."""
    from monai import losses

    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.standard_normal((3, channels, *shape)), requires_grad=True)
    t = torch.tensor(rng.integers(0, max(channels, 2), (3, *shape)))
    theirs = smooth * (2 if name == "Jaccard" else 1)
    monais = losses.DiceLoss(
        sigmoid=channels == 1,
        softmax=channels > 1,
        to_onehot_y=channels > 1,
        jaccard=name == "Jaccard",
        batch=True,
        smooth_nr=theirs,
        smooth_dr=theirs,
    )(logits, t.unsqueeze(1))
    loss = region(name, "logits", channels, Target("mask", shape), smooth=smooth)(logits, t)
    assert loss.item() == pytest.approx(monais.item(), rel=1e-9)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (loss, monais)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@BOTH
def test_of_answers_without_doubt_it_is_scikit_learns(name):
    """A class that is neither said nor there leaves the mean, as one of the labels does that are left out."""
    from sklearn.metrics import f1_score, jaccard_score

    rng = np.random.default_rng(6)
    t, said = rng.integers(0, 3, (4, *SHAPE)), rng.integers(1, 4, (4, *SHAPE))
    p = np.moveaxis(np.eye(6)[said], -1, 1)
    score = f1_score if name == "Dice" else jaccard_score
    expected = 1 - score(t.ravel(), said.ravel(), average="macro", labels=[0, 1, 2, 3])
    loss = region(name, "probabilities", 6, smooth=0)(torch.tensor(p), torch.tensor(t))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@BOTH
def test_every_source_says_the_same(name):
    rng = np.random.default_rng(2)
    logits = torch.tensor(rng.standard_normal((2, 3, *SHAPE)))
    t = torch.tensor(rng.integers(0, 3, (2, *SHAPE)))
    said = {"logits": logits, "softmax": logits.softmax(1), "probabilities": logits.softmax(1)}
    said["log_softmax"] = logits.log_softmax(1)
    values = [region(name, source, 3)(output, t).item() for source, output in said.items()]
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)


@BOTH
@pytest.mark.parametrize("weight", [None, [2.0, 1.0]], ids=str)
def test_values_are_soft_targets(name, weight):
    rng = np.random.default_rng(3)
    p, t = rng.uniform(size=(2, 2, *SHAPE)), rng.uniform(size=(2, 2, *SHAPE))
    over = (0, 2, 3)
    losses = formula(name, (p * t).sum(over), p.sum(over), t.sum(over), 1e-6)
    expected = np.average(losses, weights=weight)
    loss = region(name, "probabilities", 2, Target("values", (2, *SHAPE)), weight=weight)
    loss = loss(torch.tensor(p), torch.tensor(t))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@BOTH
def test_labels_leave_out_the_class_to_ignore(name):
    rng = np.random.default_rng(4)
    logits, t = rng.standard_normal((20, 4)), rng.integers(0, 4, 20)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = region(name, "logits", 4, Target("labels", ()), ignore_index=2)(torch.tensor(logits), torch.tensor(t))
    assert loss.item() == pytest.approx(by_hand(name, p, t, ignored=2), rel=1e-12)


@BOTH
def test_one_channel_with_nothing_to_find_is_pushed_down(name):
    logits = torch.zeros(1, 1, *SHAPE, dtype=torch.float64, requires_grad=True)
    loss = region(name, "logits", 1)(logits, torch.zeros(1, *SHAPE, dtype=torch.int64))
    loss.backward()
    assert loss.item() == pytest.approx(1, rel=1e-6)
    assert (logits.grad > 0).all()


@BOTH
def test_a_perfect_answer_is_zero(name):
    t = torch.tensor(np.random.default_rng(5).integers(0, 3, (2, *SHAPE)))
    p = torch.nn.functional.one_hot(t, 3).movedim(-1, 1).double()
    assert region(name, "softmax", 3)(p, t).item() == pytest.approx(0, abs=1e-12)
