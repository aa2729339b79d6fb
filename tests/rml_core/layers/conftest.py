"""The oracle: a model that Keras 3 builds on torch, and ours from its JSON, with the same weights on the same input."""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read


def close(ours, theirs, what):
    """Equal to 1e-5 of the largest number."""
    ours, theirs = ours.detach(), theirs.detach()
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} instead of {tuple(theirs.shape)}"
    scale = max(1.0, float(theirs.abs().max()) if theirs.numel() else 0.0)
    torch.testing.assert_close(
        ours,
        theirs,
        rtol=0,
        atol=1e-5 * scale,
        msg=lambda text: f"{what}: {text}",
    )


def dtype_of(model):
    return getattr(torch, model.inputs[0].dtype)


def channels_first(x):
    return x.movedim(-1, 1)


def randomize(model, rng):
    """Weights that hide nothing: no zeros, no ones, positive variances."""
    for weight in model.weights:
        values = rng.normal(size=weight.shape) / max(1.0, np.prod(weight.shape[:-1])) ** 0.5
        if "variance" in weight.path or "gamma" in weight.path:
            values = rng.uniform(0.5, 1.5, size=weight.shape)
        weight.assign(values)


def keras_layer(model, name):
    """Keras's layer for our `outer/inner`."""
    for part in name.split("/"):
        model = model.get_layer(part)
    return model


def pairs(network, ours, model):
    """(name, our tensor, their variable, the permutation of axes) of every weight."""
    for layer in (layer for layer in network.unique if layer.weights):
        theirs = keras_layer(model, layer.name)
        assert len(layer.weights) == len(theirs.weights)
        for weight, variable in zip(layer.weights, theirs.weights, strict=True):
            assert weight.shape == tuple(variable.shape)
            tensor = (
                ours.get_submodule(layer.name).get_parameter
                if weight.learned
                else ours.get_submodule(layer.name).get_buffer
            )
            yield f"{layer.name}.{weight.attribute}", tensor(weight.attribute), variable, weight.axes


def laid_out(values, axes):
    return values.permute(axes) if axes else values


def copy_weights(network, ours, model):
    with torch.no_grad():
        for _, tensor, variable, axes in pairs(network, ours, model):
            tensor.copy_(laid_out(variable.value, axes))


@pytest.fixture(scope="session", name="close")
def _close():
    return close


@pytest.fixture(scope="session", name="randomize")
def _randomize():
    return randomize


@pytest.fixture(autouse=True)
def _same_weights_each_time():
    """Keras draws the weights: of some draws a ReLU is so near 0 that rounding decides."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def from_keras():
    """model -> (network, module with the model's weights)."""

    def make(model, source=None, sample_shape=None):
        source = json.loads(model.to_json().replace("float64", "float32")) if source is None else source
        network = infer(read(source, "layers", Path()), sample_shape)
        ours = build(network, seed=1).to(dtype_of(model))
        copy_weights(network, ours, model)
        return network, ours

    return make


@pytest.fixture
def double_precision(monkeypatch):
    """Models made under it compute in float64, where deep networks can be compared: a ReLU near 0 may go either way."""
    # For Keras the type of float64 and float32 is float32, and it normalises and averages in that.
    single = keras.src.backend.result_type

    def double(*types):
        return "float64" if "float64" in map(keras.backend.standardize_dtype, types) else single(*types)

    for module in (keras.src.backend, keras.src.backend.common.dtypes):
        monkeypatch.setattr(module, "result_type", double)
    for setting in (keras.config.set_floatx, keras.config.set_dtype_policy):
        setting("float64")
    yield
    for setting in (keras.config.set_floatx, keras.config.set_dtype_policy):
        setting("float32")


@pytest.fixture(scope="session")
def agree(from_keras):
    """Compares shapes, counts, outputs in evaluation and training, gradients and moving statistics."""

    def compare(model, batch=2, steps=1, sizes=None, memory_format=torch.contiguous_format, gradients=True):
        rng = np.random.default_rng(0)
        randomize(model, rng)
        network, ours = from_keras(model)
        assert network.output_shape_keras == tuple(model.output_shape[1:])
        assert network.parameters == model.count_params()
        assert network.trainable == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        shape = [size or 8 for size in (sizes or model.input_shape[1:])]
        for training in (False, *[True] * steps):
            ours.train(training)
            values = torch.from_numpy(rng.normal(size=(batch, *shape))).to(dtype_of(model))
            theirs_in = values.clone().requires_grad_()
            ours_in = channels_first(values).clone(memory_format=memory_format).requires_grad_()
            for weight in model.weights:
                weight.value.grad = None
            ours.zero_grad(set_to_none=True)
            theirs_out, ours_out = model(theirs_in, training=training), ours(ours_in)
            close(ours_out, channels_first(theirs_out), f"output, training {training}")
            if not gradients:
                continue
            pull = torch.from_numpy(rng.normal(size=tuple(theirs_out.shape))).to(dtype_of(model))
            pull /= pull.numel() ** 0.5  # gradients near 1: what is compared is no rounding of long sums
            (theirs_out * pull).sum().backward()
            (ours_out * channels_first(pull)).sum().backward()
            close(ours_in.grad, channels_first(theirs_in.grad), "gradient of the input")
            for name, tensor, variable, axes in pairs(network, ours, model):
                close(tensor, laid_out(variable.value.to(tensor.dtype), axes), name)
                if variable.trainable and variable.value.grad is not None and tensor.requires_grad:
                    close(tensor.grad, laid_out(variable.value.grad, axes), f"gradient of {name}")
                if isinstance(tensor, torch.nn.Parameter):
                    assert tensor.requires_grad == variable.trainable
        return network, ours

    return compare


@pytest.fixture(scope="session")
def agree_layer(agree):
    """A single layer (or a list of them, in a row) on an input of `shape`, channels last."""

    def compare(layers, shape, **options):
        layers = layers if isinstance(layers, list) else [layers]
        return agree(keras.Sequential([keras.Input(shape), *layers]), **options)

    return compare
