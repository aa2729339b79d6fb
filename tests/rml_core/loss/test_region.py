import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.section import parse
from rml_core.config.target import IGNORED, Target
from rml_core.loss import LOSSES, Fitted

SHAPE = (6, 7)
MASK = Target("mask", SHAPE)


def dice(source, channels, target=MASK, **keys):
    section = parse(LOSSES["Dice"], {"function": "Dice", **keys}, "")
    return section.build(Fitted(source), (channels, *target.shape), target)


def by_hand(p, t, smooth=1e-6, weight=None, ignored=IGNORED):
    """The page's formula, class by class: p (N, C, ...) probabilities, t (N, ...) class indices."""
    channels = p.shape[1]
    p, t = np.moveaxis(p, 1, -1).reshape(-1, channels), t.ravel()
    p, t = p[t != ignored], t[t != ignored]
    losses, weights = [], []
    for c in range(channels):
        mine = t == (c if channels > 1 else 1)
        if channels > 1 and not mine.any() and not (p.argmax(1) == c).any():
            continue
        losses.append(1 - (2 * p[mine, c].sum() + smooth) / (p[:, c].sum() + mine.sum() + smooth))
        weights.append(1 if weight is None else weight[c])
    return np.average(losses, weights=weights)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 5),
    present=st.integers(1, 5),
    smooth=st.sampled_from([0.0, 1e-6, 1.0]),
    ignored=st.booleans(),
    weighted=st.booleans(),
)
def test_it_is_the_formula(seed, channels, present, smooth, ignored, weighted):
    rng = np.random.default_rng(seed)
    classes = max(channels, 2)
    logits = torch.tensor(rng.standard_normal((2, channels, *SHAPE)) * 3)
    t = rng.integers(IGNORED if ignored else 0, min(present, classes), (2, *SHAPE))
    weight = list(rng.uniform(0.1, 2, channels)) if weighted else None
    p = logits.sigmoid() if channels == 1 else logits.softmax(1)
    loss = dice("logits", channels, smooth=smooth, weight=weight)(logits, torch.tensor(t))
    assert loss.item() == pytest.approx(by_hand(p.numpy(), t, smooth, weight), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_monais_where_every_class_is_there(channels):
    losses = pytest.importorskip("monai.losses")
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.standard_normal((3, channels, *SHAPE)))
    t = torch.tensor(rng.integers(0, max(channels, 2), (3, *SHAPE)))
    monais = losses.DiceLoss(
        sigmoid=channels == 1,
        softmax=channels > 1,
        to_onehot_y=channels > 1,
        batch=True,
        smooth_nr=1e-6,
        smooth_dr=1e-6,
    )(logits, t.unsqueeze(1))
    assert dice("logits", channels)(logits, t).item() == pytest.approx(monais.item(), rel=1e-9)


def test_every_source_says_the_same():
    rng = np.random.default_rng(2)
    logits = torch.tensor(rng.standard_normal((2, 3, *SHAPE)))
    t = torch.tensor(rng.integers(0, 3, (2, *SHAPE)))
    said = {"logits": logits, "softmax": logits.softmax(1), "probabilities": logits.softmax(1)}
    said["log_softmax"] = logits.log_softmax(1)
    values = [dice(source, 3)(output, t).item() for source, output in said.items()]
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)


def test_values_are_soft_targets():
    rng = np.random.default_rng(3)
    p, t = rng.uniform(size=(2, 2, *SHAPE)), rng.uniform(size=(2, 2, *SHAPE))
    expected = np.mean(
        [1 - (2 * (p[:, c] * t[:, c]).sum() + 1e-6) / (p[:, c].sum() + t[:, c].sum() + 1e-6) for c in range(2)]
    )
    loss = dice("probabilities", 2, Target("values", SHAPE))(torch.tensor(p), torch.tensor(t))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_labels_leave_out_the_class_to_ignore():
    rng = np.random.default_rng(4)
    logits, t = rng.standard_normal((20, 4)), rng.integers(0, 4, 20)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = dice("logits", 4, Target("labels", ()), ignore_index=2)(torch.tensor(logits), torch.tensor(t))
    assert loss.item() == pytest.approx(by_hand(p, t, ignored=2), rel=1e-12)


def test_one_channel_with_nothing_to_find_is_pushed_down():
    logits = torch.zeros(1, 1, *SHAPE, dtype=torch.float64, requires_grad=True)
    loss = dice("logits", 1)(logits, torch.zeros(1, *SHAPE, dtype=torch.int64))
    loss.backward()
    assert loss.item() == pytest.approx(1, rel=1e-6)
    assert (logits.grad > 0).all()


def test_a_perfect_answer_is_zero():
    t = torch.tensor(np.random.default_rng(5).integers(0, 3, (2, *SHAPE)))
    p = torch.nn.functional.one_hot(t, 3).movedim(-1, 1).double()
    assert dice("softmax", 3)(p, t).item() == pytest.approx(0, abs=1e-12)
