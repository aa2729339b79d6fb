import math

import keras
import pytest
import torch
from pydantic import BaseModel, ValidationError

from rml_core.config.seed import derive
from rml_core.layers.initializers import INITIALIZERS, Initial, fans

KERNELS = [(300, 200), (3, 3, 40, 60), (3, 3, 3, 20, 10)]
RANDOM = [
    ("glorot_uniform", {}),
    ("glorot_normal", {}),
    ("he_uniform", {}),
    ("he_normal", {}),
    ("lecun_uniform", {}),
    ("lecun_normal", {}),
    ("random_uniform", {"minval": -0.2, "maxval": 0.6}),
    ("random_normal", {"mean": 0.3, "stddev": 0.2}),
    ("truncated_normal", {"mean": 0.3, "stddev": 0.2}),
    ("variance_scaling", {"scale": 3.0, "mode": "fan_out", "distribution": "uniform"}),
    ("variance_scaling", {"scale": 0.5, "mode": "fan_avg", "distribution": "untruncated_normal"}),
    ("variance_scaling", {"scale": 0.5, "mode": "fan_in", "distribution": "truncated_normal"}),
]


class Holder(BaseModel):
    initial: Initial


def drawn(name, config, shape, seed=0):
    initial = Holder(initial={"class_name": name, "config": config}).initial
    return initial.draw(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", KERNELS)
@pytest.mark.parametrize(("name", "config"), RANDOM)
def test_random_ones_have_the_moments_and_the_range_of_keras(name, config, shape):
    ours = drawn(name, config, shape)
    theirs = keras.initializers.get({"class_name": name, "config": config})(shape)
    assert ours.dtype == torch.float32
    assert ours.shape == theirs.shape
    spread = float(theirs.std())
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=4 * spread / math.sqrt(ours.numel()) * 1.5)
    assert float(ours.std()) == pytest.approx(spread, rel=0.03)
    if "uniform" in (name + str(config)) and "untruncated" not in str(config):
        assert ours.aminmax()[0] == pytest.approx(float(theirs.min()), rel=0.01)
        assert ours.aminmax()[1] == pytest.approx(float(theirs.max()), rel=0.01)


def test_a_truncated_normal_has_its_shape_of_density():
    values = drawn("truncated_normal", {"stddev": 1.0}, (200_000,))
    inside = float((values.abs() < 1).float().mean())
    assert float(values.abs().max()) <= 2.0
    assert inside == pytest.approx(math.erf(1 / math.sqrt(2)) / math.erf(2 / math.sqrt(2)), abs=0.004)


@pytest.mark.parametrize(("name", "config"), [("zeros", {}), ("ones", {}), ("constant", {"value": 0.7})])
def test_fixed_ones(name, config):
    theirs = keras.initializers.get({"class_name": name, "config": config})((3, 4))
    assert torch.equal(drawn(name, config, (3, 4)), theirs)


def test_identity():
    theirs = keras.initializers.Identity(gain=2.0)((3, 4))
    assert torch.equal(drawn("identity", {"gain": 2.0}, (3, 4)), theirs)
    kernel = drawn("identity", {}, (3, 3, 2, 2))
    assert torch.equal(kernel[1, 1], torch.eye(2))
    assert float(kernel.sum()) == 2.0


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 5)])
def test_orthogonal_rows_or_columns(shape):
    matrix = drawn("orthogonal", {"gain": 2.0}, shape).reshape(-1, shape[-1])
    smaller = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
    torch.testing.assert_close(smaller @ smaller.T, 4 * torch.eye(smaller.shape[0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(), (5,), (5, 6), (3, 5, 6), (3, 2, 5, 6)])
def test_fans_are_those_of_keras(shape):
    from keras.src.initializers.random_initializers import compute_fans

    assert fans(shape) == compute_fans(shape)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_spelling_of_keras_is_read(name):
    camel = "".join(part.capitalize() for part in name.split("_"))
    written = {"module": "keras.initializers", "class_name": camel, "config": {"seed": None}, "registered_name": None}
    expected = INITIALIZERS[name]
    for spelling in (name, camel, camel.upper(), written, {"class_name": name}):
        if not (name in ("zeros", "ones") and spelling == camel):
            assert type(Holder(initial=spelling).initial) is expected


def test_what_keras_writes_is_read():
    from keras.src.saving import serialization_lib

    for name in INITIALIZERS:
        made = keras.initializers.Constant(0.5) if name == "constant" else keras.initializers.get(name)
        written = serialization_lib.serialize_keras_object(made)
        assert type(Holder(initial=written).initial) is INITIALIZERS[name]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("glorot", 'unknown initialiser "glorot"'),
        (3, "3 is not the name of an initialiser"),
        ({"class_name": "Constant", "config": {"value": "x"}}, "does not fit: value: Input should be a valid number"),
        ({"class_name": "Constant", "config": {"valu": 1.0}}, "does not fit: valu: unknown key"),
    ],
)
def test_what_cannot_be_read(given, message):
    with pytest.raises(ValidationError) as error:
        Holder(initial=given)
    assert message in str(error.value)


def test_a_weight_depends_on_seed_and_names_alone():
    from pathlib import Path

    from rml_core.layers.build import build
    from rml_core.layers.graph import infer
    from rml_core.layers.keras_json import read

    def state(names, seed):
        source = [{"class_name": "Dense", "config": {"units": 4}, "name": name} for name in names]
        torch.manual_seed(len(names))
        before = torch.get_rng_state()
        found = build(infer(read(source, "layers", Path()), (4,)), seed).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        return found

    one, other = state(["a", "b"], 5), state(["c", "b", "a"], 5)
    assert torch.equal(one["a.weight"], other["a.weight"])
    assert not torch.equal(one["a.weight"], one["b.weight"])
    assert not torch.equal(one["a.weight"], state(["a", "b"], 6)["a.weight"])
    generator = torch.Generator().manual_seed(derive(5, "initial", "a", "kernel") % 2**63)
    expected = torch.empty(4, 4).uniform_(-math.sqrt(6 / 8), math.sqrt(6 / 8), generator=generator).T
    assert torch.equal(one["a.weight"], expected)
    assert not one["a.bias"].any()
