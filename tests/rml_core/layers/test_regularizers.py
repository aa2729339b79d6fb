"""Regularisers against Keras: what their JSON says, and what they add to the loss that is minimised and reported."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.data.batches import Batch
from rml_core.engine.evaluation import evaluate
from rml_core.engine.gallery import Gallery
from rml_core.engine.precision import Precision
from rml_core.engine.step import Training, step
from rml_core.layers.build import build
from rml_core.layers.dense import Dense
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

L, R = keras.layers, keras.regularizers
ORACLE = json.loads((Path(__file__).parents[2] / "oracles" / "keras_2_regularizers.json").read_text())
CPU = torch.device("cpu")


# --- what the JSON says


@pytest.mark.parametrize(
    ("given", "factors"),
    [
        ("l1", (0.01, 0)),
        ("L2", (0, 0.01)),
        ("l1_l2", (0.01, 0.01)),
        # Keras's class has other defaults than its function.
        ("L1L2", (0, 0)),
        ({"class_name": "L1", "config": {"l1": 0.5}}, (0.5, 0)),
        ({"class_name": "L1", "config": {"l": 0.5}}, (0.5, 0)),
        ({"class_name": "l2", "config": {"l2": None}}, (0, 0.01)),
        ({"class_name": "L1L2", "config": {"l1": 0.0, "l2": 3}}, (0, 3)),
        ({"class_name": "L1L2", "config": {"l1": None}}, (0, 0)),
        (
            {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": 0.2}, "registered_name": None},
            (0, 0.2),
        ),
    ],
)
def test_every_spelling_of_keras_is_read(given, factors):
    section = parse(Dense, {"units": 1, "kernel_regularizer": given}, "")
    assert section.kernel_regularizer.factors == pytest.approx(factors)


@pytest.mark.parametrize("make", [lambda: R.L1(0.3), lambda: R.L2(0.3), lambda: R.L1L2(0.1, 0.3)])
def test_what_keras_3_writes_is_read(make):
    section = parse(Dense, {"units": 1, "bias_regularizer": R.serialize(make())}, "")
    written = make().get_config()
    assert section.bias_regularizer.factors == pytest.approx((written.get("l1", 0), written.get("l2", 0)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("l1_12", 'unknown regulariser "l1_12"\n    allowed: l1, l2, l1_l2\n    did you mean "l1_l2"?'),
        (0.1, "0.1 is not the name of a regulariser\n    allowed: l1, l2, l1_l2"),
        (
            {"class_name": "OrthogonalRegularizer", "config": {"factor": 0.1, "mode": "rows"}},
            "the orthogonal regulariser is not available\n    allowed: l1, l2, l1_l2",
        ),
        (
            "orthogonal_regularizer",
            "the orthogonal regulariser is not available\n    allowed: l1, l2, l1_l2",
        ),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(Refused) as refused:
        parse(Dense, {"units": 1, "kernel_regularizer": given}, "c")
    assert str(refused.value) == f"c.kernel_regularizer: {message}"


def test_every_problem_of_a_config_is_said():
    with pytest.raises(Refused) as refused:
        parse(Dense, {"units": 1, "kernel_regularizer": {"class_name": "L1L2", "config": {"l1": -1, "m": 2}}}, "c")
    assert str(refused.value) == (
        "c.kernel_regularizer.config.l1: -1 does not fit\n    allowed: greater than or equal to 0\n"
        "c.kernel_regularizer.config.m: unknown key\n    allowed: l1, l2"
    )


# --- what is added


def everywhere():
    """Every kind of weight, shared and nested layers, frozen ones, and outputs."""
    x = keras.Input((6, 5, 3))
    shared = L.Conv2D(3, 3, padding="same", kernel_regularizer="l2", activity_regularizer=R.L1(0.02))
    y = shared(L.BatchNormalization(beta_regularizer="l1", gamma_regularizer=R.L1L2(0.3, 0.1))(shared(x)))
    inner_x = keras.Input((6, 5, 3))
    inner = keras.Model(inner_x, L.Conv2D(2, 2, kernel_regularizer=R.L1L2(0.05, 0.05), activation="relu")(inner_x))
    y = L.Conv2DTranspose(2, 2, bias_regularizer="l2", kernel_regularizer="l1", trainable=False)(inner(y))
    y = L.ReLU(activity_regularizer=R.L2(0.3))(L.Flatten()(y))
    return keras.Model(x, L.Dense(2, kernel_regularizer=R.L2(0.2), activity_regularizer=R.L1L2(0.1, 0.2))(y))


WITH_WEIGHTS = {
    "Dense": ((3,), {"units": 2}),
    "Conv1D": ((6, 4), {"filters": 2, "kernel_size": 3, "groups": 2}),
    "Conv2D": ((6, 5, 3), {"filters": 2, "kernel_size": 3}),
    "Conv3D": ((4, 4, 4, 2), {"filters": 2, "kernel_size": 2}),
    "Conv1DTranspose": ((6, 3), {"filters": 2, "kernel_size": 3}),
    "Conv2DTranspose": ((6, 5, 3), {"filters": 2, "kernel_size": 3}),
    "Conv3DTranspose": ((3, 3, 3, 2), {"filters": 2, "kernel_size": 2}),
    "DepthwiseConv1D": ((6, 3), {"kernel_size": 3, "depth_multiplier": 2}),
    "DepthwiseConv2D": ((6, 5, 3), {"kernel_size": 3, "depth_multiplier": 2}),
    "SeparableConv1D": ((6, 3), {"filters": 2, "kernel_size": 3}),
    "SeparableConv2D": ((6, 5, 3), {"filters": 2, "kernel_size": 3, "depth_multiplier": 2}),
    "BatchNormalization": ((6, 5, 3), {}),
    "LayerNormalization": ((6, 5, 3), {}),
    "GroupNormalization": ((6, 5, 4), {"groups": 2}),
    "PReLU": ((6, 3), {}),
}


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_every_regularizer_of_every_layer(from_keras, name):
    """A factor of its own on each weight: none is taken for another's."""
    shape, config = WITH_WEIGHTS[name]
    kind = getattr(L, name)
    names = [key for key in kind(**config).get_config() if key.endswith("_regularizer")]
    factors = {key: R.L1L2(0.01 * place, 0.02 * place) for place, key in enumerate(names, start=1)}
    model = keras.Sequential([keras.Input(shape), kind(**config, **factors)])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape))
    _, ours = from_keras(model)
    ours.penalty.watching = True
    values = torch.from_numpy(rng.normal(size=(4, *shape)).astype("float32"))
    model(values)
    ours(values.movedim(-1, 1))
    assert len(model.losses) == len(names)
    assert ours.penalty().item() == pytest.approx(sum(model.losses).item(), rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_the_penalty_and_its_gradient_are_those_of_keras_3(double_precision, from_keras, training):
    model = everywhere()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape) * (1 if "variance" in weight.path else rng.choice([-1, 1])))
    network, ours = from_keras(model)
    ours.train(training)
    ours.penalty.watching = True
    values = torch.from_numpy(rng.normal(size=(4, 6, 5, 3)))
    for _ in range(2):
        # An earlier pass has no part in it.
        model(values, training=training)
        ours(values.movedim(-1, 1))
    expected, found = sum(model.losses), ours.penalty()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    found.backward()
    compared = 0
    for layer in network.unique:
        theirs = model
        for part in layer.name.split("/"):
            theirs = theirs.get_layer(part)
        for weight, variable in zip(layer.weights, theirs.weights, strict=True):
            if variable.trainable and variable.value.grad is not None:
                gradient = ours.get_submodule(layer.name).get_parameter(weight.attribute).grad
                wanted = variable.value.grad.permute(weight.axes) if weight.axes else variable.value.grad
                torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)
                compared += 1
    assert compared == 8
    # What was seen counts once.
    weights = ours.penalty().item()
    assert weights == pytest.approx(sum(loss.item() for loss in model._get_regularization_losses()), rel=1e-5)


def test_the_gradient_of_the_weights_is_differentiable_itself():
    regularizer = {"class_name": "L1L2", "config": {"l1": 0.3, "l2": 0.2}}
    layer = {"class_name": "Dense", "config": {"units": 3, "kernel_regularizer": regularizer}}
    ours = build(infer(read([layer], "layers", Path()), (4,)), 0).double()
    weight = ours.get_parameter("dense.weight")
    first = torch.autograd.grad(ours.penalty(), weight, create_graph=True)[0]
    torch.testing.assert_close(first, 0.3 * weight.sign() + 0.4 * weight)
    second = torch.autograd.grad(first.sum(), weight)[0]
    torch.testing.assert_close(second, torch.full_like(weight, 0.4))


def test_a_network_without_regularisers_has_no_penalty():
    assert (
        build(infer(read([{"class_name": "Dense", "config": {"units": 3}}], "layers", Path()), (4,)), 0).penalty is None
    )


# --- the losses that are reported


def reported(module, inputs, targets, batch, epochs, rate):
    """Losses of `evaluate` before, of each step, and of `evaluate` after; channels first."""
    module.penalty.watching = True
    optimizer = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=rate)
    training = Training.of(module, F.mse_loss, optimizer, Precision.named("single"), CPU, None, module.penalty)

    def evaluated():
        parts = [slice(at, at + 4) for at in range(0, len(inputs), 4)]
        batches = iter(
            [Batch(inputs[part].numpy(), targets[part].numpy(), np.arange(len(inputs))[part]) for part in parts]
        )
        result = evaluate(
            module, F.mse_loss, Silent(), batches, device=CPU, precision=Precision.named("single"), names=[""] * 10,
            output=None, gallery=Gallery(), stop=lambda: False, penalty=module.penalty.fixed(),
        )  # fmt: skip
        return result.loss / result.samples

    before, losses = evaluated(), []
    module.train()
    for _ in range(epochs):
        for at in range(0, len(inputs), batch):
            part = slice(at, at + batch)
            loss, _ = step(training, inputs[part], targets[part], share=1, first=True, update=True)
            losses.append(loss.item())
    return before, losses, evaluated()


class Silent:
    def update(self, output, target, kept=None): ...

    def state(self):
        return {}

    def result(self, state):
        return {}


def test_fit_and_evaluate_of_keras_3(from_keras):
    model = everywhere()
    _, ours = from_keras(model)
    rng = np.random.default_rng(1)
    inputs, targets = rng.normal(size=(10, 6, 5, 3)).astype("float32"), rng.normal(size=(10, 2)).astype("float32")
    model.compile(keras.optimizers.SGD(0.01), "mse")

    losses = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            # The reported loss is a mean over the epoch: of a single batch where it begins anew.
            self.model.reset_metrics()

        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    before = model.evaluate(inputs, targets, batch_size=4, verbose=0)
    model.fit(inputs, targets, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[Steps()])
    after = model.evaluate(inputs, targets, batch_size=4, verbose=0)
    found = reported(ours, torch.from_numpy(inputs).movedim(-1, 1), torch.from_numpy(targets), 4, 2, 0.01)
    assert found[0] == pytest.approx(before, rel=1e-5)
    assert found[1] == pytest.approx(losses, rel=1e-4)
    assert found[2] == pytest.approx(after, rel=1e-4)


def test_a_few_steps_of_keras_2():
    """There a frozen layer's weights are in the loss too."""
    network = infer(read(ORACLE["model"], "layers", Path()), None)
    ours = build(network, 0)
    tensors = ours.state_dict()
    for layer in network.unique:
        for weight in layer.weights:
            values = torch.tensor(ORACLE["weights"][f"{layer.name}:{weight.name}"])
            tensors[f"{layer.name}.{weight.attribute}"].copy_(values.permute(weight.axes) if weight.axes else values)
    inputs, targets = torch.tensor(ORACLE["inputs"]).movedim(-1, 1), torch.tensor(ORACLE["targets"])
    before, trained, after = reported(ours, inputs, targets, 6, 3, 0.05)
    assert before == pytest.approx(ORACLE["evaluated"], rel=1e-5)
    assert trained == pytest.approx(ORACLE["trained"], rel=1e-4)
    assert after == pytest.approx(ORACLE["evaluated after"], rel=1e-4)


def test_networks_that_differ_in_a_regulariser_differ():
    """A run is not resumed with another one."""
    layers = [[{"class_name": "Dense", "config": {"units": 3, "kernel_regularizer": given}}] for given in ("l1", "l2")]
    one, other = (read(each, "layers", Path()) for each in layers)
    assert one != other
    assert one == read(layers[0], "layers", Path())
