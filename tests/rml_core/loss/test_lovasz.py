import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.target import IGNORED, Target

SHAPES = {1: (11,), 2: (4, 5), 3: (2, 3, 4)}


def mask(shape):
    return Target("mask", shape)


def extended(errors, of_class):
    """Berman's Algorithm 1, in NumPy: gradients of the extension by differences of the Jaccard losses."""
    order = np.argsort(-errors, kind="stable")
    errors, of_class = errors[order], of_class[order]
    there = of_class.sum()
    jaccard = 1 - (there - of_class.cumsum()) / (there + (~of_class).cumsum())
    return (errors * np.diff(jaccard, prepend=0)).sum()


def softmax_by_hand(p, t, weight=None, per_image=False):
    """p (N, C, ...), t (N, ...): what is ignored is taken out before anything else."""
    p, t = np.moveaxis(p, 1, -1), np.asarray(t)
    images = [(p[[n]], t[[n]]) for n in range(len(p))] if per_image else [(p, t)]
    means = []
    for p_of, t_of in images:
        kept = t_of != IGNORED
        classes = [c for c in range(p.shape[-1]) if (t_of[kept] == c).any() and (weight is None or weight[c])]
        losses = [extended(np.abs((t_of[kept] == c) - p_of[kept][:, c]), t_of[kept] == c) for c in classes]
        if classes:
            means.append(np.average(losses, weights=None if weight is None else [weight[c] for c in classes]))
    return np.mean(means) if means else 0.0


def hinge_by_hand(x, t, per_image=False):
    x, t = np.asarray(x)[:, 0], np.asarray(t)
    images = [(x[n], t[n]) for n in range(len(x))] if per_image else [(x, t)]
    losses = []
    for x_of, t_of in images:
        kept = t_of != IGNORED
        if kept.any():
            errors = np.maximum(1 - x_of[kept] * np.where(t_of[kept] == 1, 1, -1), 0)
            losses.append(extended(errors, t_of[kept] == 1))
    return np.mean(losses) if losses else 0.0


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10000),
    rank=st.integers(1, 3),
    channels=st.integers(1, 5),
    present=st.integers(1, 5),
    ignored=st.booleans(),
    weighted=st.booleans(),
    per_image=st.booleans(),
)
def test_it_is_the_formula(built, seed, rank, channels, present, ignored, weighted, per_image):
    shape, rng = SHAPES[rank], np.random.default_rng(seed)
    logits = torch.tensor(rng.standard_normal((3, channels, *shape)) * 2)
    t = torch.tensor(rng.integers(IGNORED if ignored else 0, min(present, max(channels, 2)), (3, *shape)))
    if ignored:
        t[1] = IGNORED
    weight = [0.0, *rng.uniform(0.1, 2, channels - 1)] if weighted and channels > 1 else None
    loss = built("Lovasz", "logits", (channels, *shape), mask(shape), weight=weight, per_image=per_image)
    if channels == 1:
        expected = hinge_by_hand(logits.numpy(), t.numpy(), per_image)
    else:
        expected = softmax_by_hand(logits.softmax(1).numpy(), t.numpy(), weight, per_image)
    assert loss(logits, t).item() == pytest.approx(expected, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_it_is_kornias_where_every_class_is_there(built, numbers, some_labels, channels, per_image):
    """Values and gradients. kornia's is a mean over images, and counts classes that are not there."""
    from kornia import losses

    shape = (9, 8)
    logits, t = numbers(3, channels, *shape).requires_grad_(), some_labels(max(channels, 2), 3, *shape)
    assert all(image.unique().numel() == max(channels, 2) for image in t)
    theirs = losses.lovasz_hinge_loss if channels == 1 else losses.lovasz_softmax_loss
    if per_image:
        expected = theirs(logits, t)
    else:
        expected = theirs(logits.transpose(0, 1).reshape(1, channels, 27, 8), t.reshape(1, 27, 8))
    loss = built("Lovasz", "logits", (channels, *shape), mask(shape), per_image=per_image)(logits, t)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("target", ["mask", "labels"])
def test_of_answers_without_doubt_it_is_the_jaccard_loss(built, some_labels, target):
    """The extension agrees with what it extends: scikit-learn's, over the classes that are there."""
    from sklearn.metrics import jaccard_score

    shape = (6, 5) if target == "mask" else ()
    t, said = some_labels(3, 8, *shape), some_labels(5, 8, *shape, seed=2)
    p = torch.nn.functional.one_hot(said, 5).movedim(-1, 1).double()
    loss = built("Lovasz", "softmax", (5, *shape), Target(target, shape))(p, t)
    scores = jaccard_score(t.flatten(), said.flatten(), average=None, labels=t.unique())
    assert loss.item() == pytest.approx(1 - scores.mean(), rel=1e-12)


@pytest.mark.parametrize("source", ["softmax", "log_softmax", "probabilities"])
def test_every_source_says_the_same(built, as_source, numbers, some_labels, source):
    logits, t = numbers(3, 4, 4, 5), some_labels(4, 3, 4, 5, ignored=True)
    given = built("Lovasz", source, (4, 4, 5), mask((4, 5)))(as_source(logits, source), t)
    assert given.item() == pytest.approx(softmax_by_hand(logits.softmax(1).numpy(), t.numpy()), rel=1e-10)


def test_several_outputs_that_end_in_sigmoid_are_compared_one_by_one(built, numbers, some_labels):
    p, t = numbers(3, 4, 4, 5).sigmoid(), some_labels(4, 3, 4, 5)
    loss = built("Lovasz", "sigmoid", (4, 4, 5), mask((4, 5)))(p, t)
    assert loss.item() == pytest.approx(softmax_by_hand(p.numpy(), t.numpy()), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("source", ["sigmoid", "probabilities"])
def test_of_a_probability_the_logit_is_computed_back(built, numbers, some_labels, source, dtype):
    logits, t = numbers(3, 1, 4, 5).to(dtype).requires_grad_(), some_labels(2, 3, 4, 5)
    values = [
        built("Lovasz", "logits", (1, 4, 5), mask((4, 5)))(logits, t),
        built("Lovasz", source, (1, 4, 5), mask((4, 5)))(logits.sigmoid(), t),
    ]
    near = 1e-10 if dtype == torch.float64 else 1e-5
    assert values[1].item() == pytest.approx(values[0].item(), rel=near)
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=10 * near, atol=near)


def test_one_output_with_nothing_to_find_is_pushed_down_where_it_is_worst(built):
    logits = torch.tensor([[[0.5, 2.0, -3.0]]], dtype=torch.float64, requires_grad=True)
    loss = built("Lovasz", "logits", (1, 3), mask((3,)))(logits, torch.zeros(1, 3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 3
    assert logits.grad.tolist() == [[[0, 1, 0]]]


def test_a_perfect_answer_is_zero(built, some_labels):
    t = some_labels(3, 2, 4, 5)
    p = torch.nn.functional.one_hot(t, 3).movedim(-1, 1).double()
    assert built("Lovasz", "softmax", (3, 4, 5), mask((4, 5)))(p, t).item() == 0
    logits = torch.where(t == 1, 1.5, -1.5)[:, None]
    assert built("Lovasz", "logits", (1, 4, 5), mask((4, 5)))(logits, (t == 1).long()).item() == 0
