import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rml_core.config.target import IGNORED, Target

SHAPES = [(), (11,), (4, 5), (2, 3, 4)]
ALPHAS = [None, 0.25, [0.3, 1.0, 2.0]]
WEIGHTS = [None, [0.5, 2.0, 1.0]]
GAMMAS = [0.0, 0.5, 2.0, 5.0]


def classes_of(shape):
    return Target("mask" if shape else "labels", shape)


def factors(alpha, classes):
    """One a class: the first are the negatives of a number."""
    if isinstance(alpha, list):
        return np.array(alpha)
    return np.ones(classes) if alpha is None else np.array([1 - alpha] + [alpha] * (classes - 1))


def by_hand(p_t, alpha_t, w_t, gamma):
    """Equation 5 of the paper, and the weighted mean."""
    return (w_t * -alpha_t * (1 - p_t) ** gamma * np.log(p_t)).sum() / w_t.sum()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("source", ["logits", "softmax", "log_softmax", "probabilities"])
def test_one_of_several_classes(built, as_source, numbers, some_labels, gamma, alpha, weight, source):
    shape = (4, 5)
    logits, t = numbers(6, 3, *shape), some_labels(3, 6, *shape, ignored=True)
    loss = built("Focal", source, (3, *shape), classes_of(shape), gamma=gamma, alpha=alpha, weight=weight)
    p, kept = np.moveaxis(logits.softmax(1).numpy(), 1, -1), t.numpy() != IGNORED
    t_kept = t.numpy()[kept]
    p_t = p[kept][np.arange(len(t_kept)), t_kept]
    expected = by_hand(p_t, factors(alpha, 3)[t_kept], np.array(weight or [1, 1, 1])[t_kept], gamma)
    assert loss(as_source(logits, source), t).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_it_is_monais_of_a_softmax(built, numbers, some_labels, shape, alpha, weight):
    """Values and gradients; monai divides by outputs and pixels."""
    from monai.losses import FocalLoss

    logits, t = numbers(6, 3, *shape).float().requires_grad_(), some_labels(3, 6, *shape)
    monais = FocalLoss(True, to_onehot_y=True, alpha=alpha, weight=weight, use_softmax=True, reduction="none")
    total = torch.tensor(weight or [1.0, 1.0, 1.0])[t].sum()
    same(
        built("Focal", "logits", (3, *shape), classes_of(shape), alpha=alpha, weight=weight)(logits, t),
        monais(logits, t[:, None]).sum() / total,
        logits,
    )


@pytest.mark.parametrize("alpha", [None, 0.25, [1.0, 1.0, 2.0]], ids=str)
def test_it_is_monais_of_outputs_that_each_say_yes_or_no(built, numbers, some_labels, alpha):
    from monai.losses import FocalLoss

    logits, t = numbers(6, 3, 4, 5).float().requires_grad_(), some_labels(3, 6, 4, 5)
    monais = FocalLoss(to_onehot_y=True, alpha=alpha)(logits, t[:, None])
    same(built("Focal", "sigmoid", (3, 4, 5), classes_of((4, 5)), alpha=alpha)(logits.sigmoid(), t), monais, logits)


@pytest.mark.parametrize("shape", SHAPES[2:], ids=str)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_it_is_kornias(built, numbers, some_labels, shape, gamma, alpha):
    from kornia.losses import binary_focal_loss_with_logits, focal_loss

    logits, t = numbers(6, 3, *shape).requires_grad_(), some_labels(3, 6, *shape, ignored=True)
    ours = built("Focal", "logits", (3, *shape), classes_of(shape), gamma=gamma, alpha=alpha)
    kornias = focal_loss(logits, t, alpha, gamma, "none", ignore_index=IGNORED).sum() / (t != IGNORED).sum()
    same(ours(logits, t), kornias, logits)
    one, t = logits[:, :1].detach().requires_grad_(), t.clamp(max=1)
    ours = built("Focal", "logits", (1, *shape), classes_of(shape), gamma=gamma, alpha=alpha)
    kornias = binary_focal_loss_with_logits(one, t[:, None].double(), alpha, gamma, "none")
    kept = (t != IGNORED)[:, None]
    same(ours(one, t), (kornias * kept).sum() / kept.sum(), one)


def same(ours, theirs, logits):
    near = 1e-9 if logits.dtype == torch.float64 else 2e-5
    assert ours.item() == pytest.approx(theirs.item(), rel=near)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=10 * near, atol=near / 100)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.25, [0.5, 3.0]], ids=str)
@pytest.mark.parametrize("weight", [None, [0.3, 2.0]], ids=str)
@pytest.mark.parametrize("source", ["logits", "sigmoid", "probabilities"])
def test_one_output(built, as_source, numbers, some_labels, gamma, alpha, weight, source):
    shape = (2, 3, 4)
    logits, t = numbers(3, 1, *shape), some_labels(2, 3, *shape, ignored=True)
    loss = built("Focal", source, (1, *shape), classes_of(shape), gamma=gamma, alpha=alpha, weight=weight)
    p, kept = logits.sigmoid().numpy()[:, 0], t.numpy() != IGNORED
    p_t, t_kept = np.where(t.numpy() == 1, p, 1 - p)[kept], t.numpy()[kept]
    expected = by_hand(p_t, factors(alpha, 2)[t_kept], np.array(weight or [1, 1])[t_kept], gamma)
    assert loss(as_source(logits, source), t).item() == pytest.approx(expected, rel=1e-10)


def column(numbers):
    return np.array(numbers).reshape(1, -1, 1, 1)


@pytest.mark.parametrize("alpha", [None, 0.25, [0.5, 3.0, 1.0]], ids=str)
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("source", ["sigmoid", "softmax"])
def test_values_are_classes_in_part(built, as_source, numbers, alpha, weight, source):
    """The loss of both answers, each as far as it is right; of a 0 or 1 it is the class's."""
    target = Target("values", (3, 4, 5))
    logits, t = numbers(6, 3, 4, 5), torch.tensor(np.random.default_rng(3).uniform(size=(6, 3, 4, 5)))
    p = as_source(logits, source)
    pn, tn, w = p.numpy(), t.numpy(), column(weight or [1, 1, 1])
    if source == "sigmoid":
        yes, no = (alpha, 1 - alpha) if alpha == 0.25 else (column(alpha or [1, 1, 1]), 1)
        each = tn * yes * (1 - pn) ** 2 * -np.log(pn) + (1 - tn) * no * pn**2 * -np.log(1 - pn)
        expected = (w * each).sum() / np.broadcast_to(w, pn.shape).sum()
    else:
        total = (w * tn).sum() if weight else 6 * 4 * 5
        expected = (w * tn * column(factors(alpha, 3)) * (1 - pn) ** 2 * -np.log(pn)).sum() / total
    loss = built("Focal", source, (3, 4, 5), target, alpha=alpha, weight=weight)
    assert loss(p, t).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("alpha", [None, 0.25, [0.5, 3.0]], ids=str)
def test_one_output_of_values_that_are_classes(built, numbers, some_labels, alpha):
    logits, t = numbers(6, 1, 4, 5), some_labels(2, 6, 4, 5)
    of_values = built("Focal", "logits", (1, 4, 5), Target("values", (1, 4, 5)), alpha=alpha)
    of_classes = built("Focal", "logits", (1, 4, 5), classes_of((4, 5)), alpha=alpha)
    assert of_values(logits, t[:, None].double()).item() == pytest.approx(of_classes(logits, t).item(), rel=1e-12)


def test_labels_leave_out_the_class_to_ignore(built, numbers, some_labels):
    logits, t = numbers(20, 4), some_labels(4, 20)
    loss = built("Focal", "logits", (4,), Target("labels", ()), ignore_index=2, gamma=0, weight=[1, 2, 3, 4])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    expected = F.cross_entropy(logits, t, weight, ignore_index=2)
    assert loss(logits, t).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_class_that_is_certain_has_a_gradient_of_zero(built):
    """The power's derivative is not finite there for gamma < 1."""
    logits = torch.tensor([[0.0, 1e4], [1e4, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = built("Focal", "logits", (2,), Target("labels", ()), gamma=0.1)(logits, torch.tensor([1, 0]))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
