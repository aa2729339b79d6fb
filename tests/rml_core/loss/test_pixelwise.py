import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.section import parse
from rml_core.config.target import IGNORED, Target
from rml_core.loss import LOSSES, Fitted

LABELS, MASK, VALUES = Target("labels", ()), Target("mask", (4, 5)), Target("values", (3, 4, 5))
N, SHAPE = 6, (4, 5)


def built(name, source, shape, target, **keys):
    return parse(LOSSES[name], {"function": name, **keys}, "").build(Fitted(source), shape, target)


def numbers(*shape, seed=0, scale=2.0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape) * scale)


def as_source(logits, source):
    """What a network gives whose last activation is `source`."""
    if source == "logits":
        return logits
    if source == "sigmoid":
        return logits.sigmoid()
    return logits.log_softmax(1) if source == "log_softmax" else logits.softmax(1)


def some_labels(classes, *shape, ignored=False, seed=1):
    low = IGNORED if ignored else 0
    return torch.tensor(np.random.default_rng(seed).integers(low, classes, shape))


def hand_nll(log_p, t, weight=None, ignored=IGNORED):
    """log_p (N, C, ...), t (N, ...), in NumPy: the sum over what counts, divided by the sum of its weights."""
    log_p, t = np.moveaxis(log_p.numpy(), 1, -1).reshape(-1, log_p.shape[1]), t.numpy().ravel()
    weight = np.ones(log_p.shape[1]) if weight is None else np.array(weight)
    kept = t != ignored
    w = weight[t[kept]]
    return -(w * log_p[kept, t[kept]]).sum() / w.sum()


@pytest.mark.parametrize("source", ["log_softmax", "softmax", "logits"])
@pytest.mark.parametrize("weight", [None, (0.3, 2.0, 0.0, 1.0)])
@pytest.mark.parametrize("kind", ["labels", "ignoring", "mask"])
def test_nll_is_the_formula_and_torchs(source, weight, kind):
    keys = {} if weight is None else {"weight": list(weight)}
    w = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    if kind == "mask":
        logits, t, target, shape, skip = numbers(N, 4, *SHAPE), some_labels(4, N, *SHAPE, ignored=True), MASK, SHAPE, -1
    else:
        logits, t, target, shape, skip = numbers(N, 4), some_labels(4, N), LABELS, (), -1
        if kind == "ignoring":
            keys["ignore_index"] = skip = 1
    loss = built("NLL", source, (4, *shape), target, **keys)(as_source(logits, source), t)
    log_p = logits.log_softmax(1)
    torchs = F.nll_loss(log_p, t, w, ignore_index=skip)
    assert loss.item() == pytest.approx(hand_nll(log_p, t, weight, skip), rel=1e-12)
    assert loss.item() == pytest.approx(torchs.item(), rel=1e-12)


@pytest.mark.parametrize("source", ["sigmoid", "probabilities", "logits"])
@pytest.mark.parametrize("weight", [None, (0.3, 2.0)])
@pytest.mark.parametrize("ignored", [False, True])
def test_bce_of_one_channel(source, weight, ignored):
    logits, t = numbers(N, 1, *SHAPE), some_labels(2, N, *SHAPE, ignored=ignored)
    keys = {} if weight is None else {"weight": list(weight)}
    output = logits if source == "logits" else logits.sigmoid()
    loss = built("BCE", source, (1, *SHAPE), MASK, **keys)(output, t)
    p, kept = logits.sigmoid().numpy()[:, 0], t.numpy() >= 0
    each = -np.where(t.numpy() == 1, np.log(p), np.log(1 - p))[kept]
    w = np.array(weight or (1, 1))[t.numpy()[kept]]
    assert loss.item() == pytest.approx((w * each).sum() / w.sum(), rel=1e-12)


@pytest.mark.parametrize("source", ["sigmoid", "softmax", "log_softmax", "logits"])
@pytest.mark.parametrize("weight", [None, (0.3, 2.0, 1.5)])
@pytest.mark.parametrize("target", [LABELS, MASK, VALUES], ids=lambda target: target.kind)
def test_bce_of_three_channels(source, weight, target):
    shape = () if target.kind == "labels" else SHAPE
    logits = numbers(N, 3, *shape)
    p = (logits.sigmoid() if source == "logits" else as_source(logits, source)).double()
    p = p.exp() if source == "log_softmax" else p
    if target.kind == "values":
        t = expected = torch.rand(N, 3, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        kept = torch.ones(N, 1, *shape)
    else:
        t = some_labels(3, N, *shape, ignored=target.kind == "mask")
        expected = F.one_hot(t.clamp(min=0), 3).movedim(-1, 1).double()
        kept = (t >= 0).unsqueeze(1).double()
    keys = {} if weight is None else {"weight": list(weight)}
    loss = built("BCE", source, (3, *shape), target, **keys)(as_source(logits, source), t)
    w = torch.tensor(weight or (1, 1, 1)).view(1, 3, *[1] * len(shape)) * kept
    w = w.expand_as(p)
    torchs = F.binary_cross_entropy(p, expected, w.double(), reduction="sum") / w.sum()
    assert loss.item() == pytest.approx(torchs.item(), rel=1e-6 if weight else 1e-12)


def test_bce_of_labels_and_one_sigmoid():
    logits, t = numbers(N, 1), some_labels(2, N)
    loss = built("BCE", "sigmoid", (1,), LABELS)(logits.sigmoid(), t)
    torchs = F.binary_cross_entropy(logits.sigmoid(), t[:, None].double())
    assert loss.item() == pytest.approx(torchs.item(), rel=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_mse_of_masks_is_of_one_hot(channels):
    output, t = numbers(N, channels, *SHAPE), some_labels(max(channels, 2), N, *SHAPE, ignored=True)
    loss = built("MSE", "probabilities", (channels, *SHAPE), MASK)(output, t)
    expected = (t[:, None] == torch.arange(3 if channels == 3 else 2)[-channels:].view(1, -1, 1, 1)).numpy()
    kept = np.broadcast_to((t >= 0)[:, None].numpy(), output.shape)
    assert loss.item() == pytest.approx(((output.numpy() - expected) ** 2)[kept].mean(), rel=1e-12)


def test_mse_of_values_and_labels():
    output, t = numbers(N, 3, *SHAPE), numbers(N, 3, *SHAPE, seed=5)
    assert built("MSE", "probabilities", (3, *SHAPE), VALUES)(output, t).item() == pytest.approx(
        ((output - t).numpy() ** 2).mean(), rel=1e-12
    )
    output, t = numbers(N, 4), some_labels(4, N)
    assert built("MSE", "probabilities", (4,), LABELS)(output, t).item() == pytest.approx(
        ((output.numpy() - np.eye(4)[t.numpy()]) ** 2).mean(), rel=1e-12
    )


def test_classes_that_weigh_nothing_are_zero():
    loss = built("NLL", "log_softmax", (2,), LABELS, weight=[0, 1])
    assert loss(numbers(3, 2).log_softmax(1), torch.zeros(3, dtype=torch.int64)).item() == 0


@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("weight", [None, (0.3, 2.0, 1.0)])
def test_nll_is_scikit_learns_log_loss(shape, weight):
    from sklearn.metrics import log_loss

    target = Target("mask" if shape else "labels", shape)
    logits, t = numbers(N, 3, *shape), some_labels(3, N, *shape, ignored=bool(shape))
    keys = {} if weight is None else {"weight": list(weight)}
    loss = built("NLL", "softmax", (3, *shape), target, **keys)(logits.softmax(1), t)
    kept, p = t != IGNORED, logits.softmax(1).movedim(1, -1)
    sample_weight = None if weight is None else np.array(weight)[t[kept]]
    expected = log_loss(t[kept], p[kept], sample_weight=sample_weight, labels=[0, 1, 2])
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("weight", [None, (0.3, 2.0)])
@pytest.mark.parametrize("ignored", [False, True])
def test_bce_of_one_output_is_scikit_learns_log_loss(shape, weight, ignored):
    from sklearn.metrics import log_loss

    target = Target("mask" if shape else "labels", shape)
    logits, t = numbers(N, 1, *shape), some_labels(2, N, *shape, ignored=ignored and bool(shape))
    keys = {} if weight is None else {"weight": list(weight)}
    if ignored and not shape:
        keys["ignore_index"] = 1
    loss = built("BCE", "sigmoid", (1, *shape), target, **keys)(logits.sigmoid(), t)
    kept = t != keys.get("ignore_index", IGNORED)
    sample_weight = None if weight is None else np.array(weight)[t[kept]]
    expected = log_loss(t[kept], logits.sigmoid()[:, 0][kept], sample_weight=sample_weight, labels=[0, 1])
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", ["BCE", "MSE"])
@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["classes", "ignoring", "values"])
def test_elements_are_weighed_by_class_or_channel(name, shape, channels, weighted, kind):
    """BCE and MSE: the errors of all elements that count, and the mean by their weights."""
    p, t = numbers(N, channels, *shape).sigmoid().numpy(), some_labels(max(channels, 2), N, *shape).numpy()
    per_class = np.array([0.3, 2.0, 0.7][: channels if kind == "values" else max(channels, 2)])
    kept, keys = np.ones_like(t, bool), {}
    if kind == "values":
        target = Target("values", (channels, *shape))
        given = expected = np.random.default_rng(3).uniform(size=p.shape)
    else:
        target = Target("mask" if shape else "labels", shape)
        if kind == "ignoring":
            kept = t != 1
            keys = {} if shape else {"ignore_index": 1}
        given = np.where(kept, t, IGNORED) if shape else t
        expected = (
            t[:, None] == np.arange(3 if channels == 3 else 2)[-channels:].reshape(1, -1, *[1] * len(shape))
        ) * 1.0
    weights = np.ones_like(p)
    if weighted:
        keys["weight"] = per_class.tolist()
        by_channel = per_class.reshape(1, -1, *[1] * len(shape))
        weights = weights * (per_class[t][:, None] if channels == 1 and kind != "values" else by_channel)
    weights = weights * kept[:, None]
    errors = (p - expected) ** 2
    if name == "BCE":
        errors = -expected * np.log(p) - (1 - expected) * np.log(1 - p)
    loss = built(name, "sigmoid", (channels, *shape), target, **keys)(torch.tensor(p), torch.tensor(given))
    assert loss.item() == pytest.approx((weights * errors).sum() / weights.sum(), rel=1e-10)


@settings(deadline=None, max_examples=50)
@given(p=st.floats(0, 1, width=32), t=st.floats(0, 1, width=32))
def test_bce_has_torchs_bounds(p, t):
    output = torch.tensor([[p]], requires_grad=True)
    expected = torch.tensor([[t]])
    ours = built("BCE", "probabilities", (1,), Target("values", (1,)))(output, expected)
    torchs = F.binary_cross_entropy(output, expected)
    assert ours.item() == pytest.approx(torchs.item(), rel=1e-6, abs=1e-7)
    gradients = [torch.autograd.grad(value, output)[0].item() for value in (ours, torchs)]
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5, abs=1e-5)
