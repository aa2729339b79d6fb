"""What every loss promises, whatever it computes."""

import pickle

import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.config.target import IGNORED, Target
from rml_core.loss import LOSSES

N, SHAPE = 4, (3, 4)
LABELS, MASK, VALUES = Target("labels", ()), Target("mask", SHAPE), Target("values", (3, *SHAPE))
VOXELS = Target("mask", (2, 3, 2))
NAMES = "NLL, BCE, MSE, Dice, Jaccard, Focal, Lovasz"
ALPHA = "a number from 0 to 1, or a list with one number a class, none below 0"

# function, source, channels, target, keys
CASES = [
    ("NLL", "log_softmax", 3, LABELS, {}),
    ("NLL", "softmax", 3, MASK, {"weight": [1, 2, 3]}),
    ("NLL", "logits", 3, MASK, {}),
    ("NLL", "logits", 3, LABELS, {"ignore_index": 2, "weight": [1, 2, 3]}),
    ("BCE", "sigmoid", 1, MASK, {"weight": [1, 3]}),
    ("BCE", "logits", 1, MASK, {}),
    ("BCE", "log_softmax", 3, MASK, {"weight": [1, 2, 3]}),
    ("BCE", "sigmoid", 3, VALUES, {"weight": [1, 2, 3]}),
    ("BCE", "logits", 3, LABELS, {"ignore_index": 1}),
    ("MSE", "linear", 3, MASK, {}),
    ("MSE", "linear", 3, VALUES, {"weight": [1, 2, 3]}),
    ("MSE", "linear", 1, LABELS, {"ignore_index": 0, "weight": [1, 2]}),
    ("Dice", "sigmoid", 1, MASK, {}),
    ("Dice", "softmax", 3, MASK, {"weight": [1, 2, 3]}),
    ("Dice", "logits", 3, LABELS, {"ignore_index": 1}),
    ("Dice", "log_softmax", 3, VALUES, {}),
    ("Jaccard", "logits", 1, VOXELS, {"smooth": 0}),
    ("Jaccard", "softmax", 3, VOXELS, {"weight": [1, 2, 3]}),
    ("Jaccard", "sigmoid", 3, VALUES, {"smooth": 1}),
    ("Focal", "logits", 1, MASK, {"alpha": 0.25}),
    ("Focal", "sigmoid", 1, MASK, {"alpha": [1, 3], "weight": [2, 1], "gamma": 0.5}),
    ("Focal", "sigmoid", 3, MASK, {"alpha": [1, 2, 3], "gamma": 5}),
    ("Focal", "logits", 3, VOXELS, {"gamma": 0.5, "alpha": 0.3}),
    ("Focal", "softmax", 3, MASK, {"weight": [1, 2, 3]}),
    ("Focal", "log_softmax", 3, LABELS, {"ignore_index": 1, "alpha": [1, 2, 3], "gamma": 5}),
    ("Focal", "logits", 3, VALUES, {"gamma": 0}),
    ("Focal", "sigmoid", 3, VALUES, {"weight": [1, 2, 3], "gamma": 1.5}),
    ("Lovasz", "logits", 1, MASK, {}),
    ("Lovasz", "sigmoid", 1, MASK, {"per_image": True}),
    ("Lovasz", "logits", 3, VOXELS, {"weight": [1, 2, 3]}),
    ("Lovasz", "softmax", 3, MASK, {"per_image": True}),
    ("Lovasz", "sigmoid", 3, MASK, {}),
    ("Lovasz", "log_softmax", 3, LABELS, {"ignore_index": 2}),
]
MASKS = [case for case in CASES if case[3].kind == "mask"]
SMOOTH = [case for case in CASES if case[0] != "Lovasz"]


@pytest.fixture
def example(built, numbers, some_labels):
    """Logits, the targets and the loss of a case."""

    def of(case, dtype=torch.float64, scale=2.0):
        name, source, channels, target, keys = case
        shape = {"labels": (), "mask": target.shape, "values": target.shape[1:]}[target.kind]
        logits = numbers(N, channels, *shape, scale=scale).to(dtype)
        if target.kind == "values":
            t = torch.rand(N, channels, *shape, generator=torch.Generator().manual_seed(3)).to(dtype)
        else:
            t = some_labels(max(channels, 2), N, *shape, ignored=target.kind == "mask")
        return logits, t, built(name, source, (channels, *shape), target, **keys)

    return of


def test_no_loss_goes_without_a_case():
    assert {case[0] for case in CASES} == set(LOSSES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_differences(example, as_source, case):
    logits, t, loss = example(case)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(as_source(x, case[1]), t), (logits,), fast_mode=True)


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_second_derivatives_are_those_of_differences(example, as_source, case):
    """Products with the Hessian need them."""
    logits, t, loss = example(case)
    logits.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: loss(as_source(x, case[1]), t), (logits,), fast_mode=True)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_extreme_outputs_give_finite_losses_and_gradients(example, as_source, case, dtype, scale):
    logits, t, loss = example(case, dtype, scale if case[0] != "MSE" else 1.0)
    logits.requires_grad_()
    value = loss(as_source(logits, case[1]), t)
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_computed_wide(example, as_source, case):
    logits, t, loss = example(case)
    narrow = as_source(logits, case[1]).to(torch.bfloat16)
    assert loss(narrow, t).item() == pytest.approx(loss(narrow.double(), t).item(), rel=1e-5)


@pytest.mark.parametrize("case", MASKS, ids=str)
def test_nothing_that_counts_is_zero_with_zero_gradients(example, as_source, case):
    logits, t, loss = example(case)
    logits.requires_grad_()
    value = loss(as_source(logits, case[1]), torch.full_like(t, IGNORED))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("case", [case for case in CASES if case[3].kind != "values"], ids=str)
def test_targets_of_one_class_are_finite(example, as_source, case):
    logits, t, loss = example(case, torch.float32)
    logits.requires_grad_()
    value = loss(as_source(logits, case[1]), torch.zeros_like(t))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("case", MASKS, ids=str)
def test_pixels_without_weight_change_nothing(example, as_source, numbers, case):
    logits, t, loss = example(case)
    other = torch.where((t == IGNORED).unsqueeze(1), numbers(*logits.shape, seed=9), logits)
    assert not torch.equal(other, logits)
    values = [loss(as_source(each, case[1]), t).item() for each in (logits, other)]
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    logits.requires_grad_()
    gradient = torch.autograd.grad(loss(as_source(logits, case[1]), t), logits)[0]
    assert not (gradient * (t == IGNORED).unsqueeze(1)).any()


@pytest.mark.parametrize("case", [case for case in CASES if "ignore_index" in case[4]], ids=str)
def test_samples_of_the_class_to_ignore_are_as_if_not_there(example, as_source, case):
    logits, t, loss = example(case)
    output, kept = as_source(logits, case[1]), t != case[4]["ignore_index"]
    assert 0 < kept.sum() < len(kept)
    assert loss(output, t).item() == pytest.approx(loss(output[kept], t[kept]).item(), rel=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case[2] > 1], ids=str)
def test_the_order_in_memory_changes_nothing(example, as_source, case):
    """Networks of images keep their channels last."""
    logits, t, loss = example(case)
    turned = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    values, gradients = [], []
    for each in (logits, turned):
        each.requires_grad_()
        values.append(loss(as_source(each, case[1]), t))
        gradients.append(torch.autograd.grad(values[-1], each)[0])
    assert values[1].item() == pytest.approx(values[0].item(), rel=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nan_is_not_hidden(example, as_source, case):
    logits, t, loss = example(case)
    assert loss(as_source(torch.full_like(logits, torch.nan), case[1]), t).isnan()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_evaluation_before_training_leaves_gradients_alone(example, as_source, case):
    logits, t, loss = example(case)
    with torch.inference_mode():
        evaluated = loss(as_source(logits, case[1]), t)
    trained = loss(as_source(logits.requires_grad_(), case[1]), t)
    trained.backward()
    assert evaluated.item() == trained.item()
    assert logits.grad.any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_autocast_computes_the_same(example, as_source, case):
    logits, t, loss = example(case, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        within = loss(as_source(logits, case[1]), t)
    assert within.item() == pytest.approx(loss(as_source(logits, case[1]), t).item(), rel=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_loss_waits_for_the_device(example, as_source, case):
    """Tensors without numbers stand for those of a GPU: what the host wants to look at is an error."""
    logits, t, loss = example(case, torch.float32)
    logits = logits.to("meta").requires_grad_()
    value = loss(as_source(logits, case[1]), t.to("meta"))
    value.backward()
    assert (value.shape, logits.grad.shape) == ((), logits.shape)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_section_travels_to_another_process(section, case):
    name, _, _, _, keys = case
    made = section(function=name, **keys)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"function": "yolov3"},
            f'loss.function: loss function "YOLOv3" is not available yet\n    allowed: {NAMES}',
        ),
        (
            {"function": "burgers_pde"},
            f'loss.function: loss function "Burgers_PDE" is not available yet\n    allowed: {NAMES}',
        ),
        (
            {"function": "nl"},
            f'loss.function: unknown loss function "nl"\n    allowed: {NAMES}\n    did you mean "NLL"?',
        ),
        (
            {"function": "NLL", "source": "log"},
            'loss.source: unknown source "log"\n    allowed: sigmoid, softmax, log_softmax, logits, probabilities\n'
            '    did you mean "logits"?',
        ),
        (
            {"function": "NLL", "weight": [0, 0]},
            "loss.weight: weighs nothing\n    allowed: one number a class, not all of them 0",
        ),
        (
            {"function": "Dice", "weight": [1, -2]},
            "loss.weight[1]: -2 does not fit\n    allowed: greater than or equal to 0",
        ),
        (
            {"function": "MSE", "gamma": 1},
            "loss.gamma: unknown key\n    allowed: function, source, weight, ignore_index",
        ),
        (
            {"function": "Dice", "smooth": -1, "per_image": True},
            "loss.smooth: -1 does not fit\n    allowed: greater than or equal to 0\n"
            "loss.per_image: unknown key\n    allowed: function, source, weight, ignore_index, smooth",
        ),
        (
            {"function": "Focal", "gamma": -1, "weight": [0], "alpha": 3},
            "loss.weight: weighs nothing\n    allowed: one number a class, not all of them 0\n"
            "loss.gamma: -1 does not fit\n    allowed: greater than or equal to 0\n"
            f"loss.alpha: 3 does not fit\n    allowed: {ALPHA}",
        ),
        ({"function": "Focal", "alpha": [1, -1]}, f"loss.alpha: [1, -1] does not fit\n    allowed: {ALPHA}"),
        ({"function": "Focal", "alpha": []}, f"loss.alpha: [] does not fit\n    allowed: {ALPHA}"),
        ({"function": "Focal", "alpha": True}, f"loss.alpha: true does not fit\n    allowed: {ALPHA}"),
        (
            {"function": "Focal", "alpha": [0, 0]},
            "loss.alpha: weighs nothing\n    allowed: one number a class, not all of them 0",
        ),
        ({"function": "Lovasz", "per_image": 1}, "loss.per_image: 1 does not fit\n    allowed: true, false"),
    ],
)
def test_a_section_that_is_wrong_in_itself(section, keys, message):
    with pytest.raises(Refused) as refused:
        section(**keys)
    assert str(refused.value) == message
