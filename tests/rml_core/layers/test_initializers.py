import math
from pathlib import Path

import keras
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.initializers.random_initializers import compute_fans
from pydantic import BaseModel
from scipy import stats

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.config.seed import derive
from rml_core.layers.build import build
from rml_core.layers.dense import Dense
from rml_core.layers.graph import infer
from rml_core.layers.initializers import INITIALIZERS, Initial, fans
from rml_core.layers.keras_json import read

NAMES = ", ".join(INITIALIZERS)
KERNELS = [(300, 200), (3, 3, 40, 60), (3, 3, 3, 20, 10)]
SCALING = [
    ("variance_scaling", {"scale": 0.7, "mode": mode, "distribution": distribution})
    for mode in ("fan_in", "fan_out", "fan_avg")
    for distribution in ("uniform", "truncated_normal", "untruncated_normal", "normal", "UNIFORM")
]
RANDOM = [
    ("glorot_uniform", {}),
    ("glorot_normal", {}),
    ("he_uniform", {}),
    ("he_normal", {}),
    ("lecun_uniform", {}),
    ("lecun_normal", {}),
    ("random_uniform", {"minval": -0.2, "maxval": 0.6}),
    ("random_uniform", {}),
    ("random_normal", {"mean": 0.3, "stddev": 0.2}),
    ("random_normal", {}),
    ("truncated_normal", {"mean": 0.3, "stddev": 0.2}),
    ("truncated_normal", {}),
    *SCALING,
]
# Of scale, fan and distribution, as Keras's documentation of each says.
NAMED = {
    "glorot_uniform": (1, "fan_avg", "uniform"),
    "glorot_normal": (1, "fan_avg", "truncated_normal"),
    "he_uniform": (2, "fan_in", "uniform"),
    "he_normal": (2, "fan_in", "truncated_normal"),
    "lecun_uniform": (1, "fan_in", "uniform"),
    "lecun_normal": (1, "fan_in", "truncated_normal"),
}


def distribution_of(name, config, shape):
    """What Keras's documentation says of the numbers, as SciPy has it."""
    if name == "random_uniform":
        low, high = config.get("minval", -0.05), config.get("maxval", 0.05)
        return stats.uniform(low, high - low)
    if name in ("random_normal", "truncated_normal"):
        mean, deviation = config.get("mean", 0.0), config.get("stddev", 0.05)
        return stats.norm(mean, deviation) if name == "random_normal" else stats.truncnorm(-2, 2, mean, deviation)
    scale, mode, kind = NAMED.get(name) or (config["scale"], config["mode"], config["distribution"].lower())
    fan_in, fan_out = compute_fans(shape)
    variance = scale / {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    if kind == "uniform":
        limit = math.sqrt(3 * variance)
        return stats.uniform(-limit, 2 * limit)
    if kind == "untruncated_normal":
        return stats.norm(0, math.sqrt(variance))
    # Of this variance after it is cut off at two of its own deviations.
    return stats.truncnorm(-2, 2, 0, math.sqrt(variance / stats.truncnorm.var(-2, 2)))


class Holder(BaseModel):
    initial: Initial


def drawn(name, config, shape, seed=0):
    initial = Holder(initial={"class_name": name, "config": config}).initial
    return initial.draw(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", KERNELS, ids=str)
@pytest.mark.parametrize(("name", "config"), RANDOM, ids=str)
def test_the_distribution_is_that_of_kerass_formula(name, config, shape):
    ours = drawn(name, config, shape)
    assert ours.dtype == torch.float32
    assert ours.shape == shape
    # The seed is fixed: that none of them is rarer than one in ten thousand was true once and stays so.
    assert stats.kstest(ours.flatten().double().numpy(), distribution_of(name, config, shape).cdf).pvalue > 1e-4


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(0, 2**63 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_numbers_lie_where_kerass_formula_has_them(data, seed, shape):
    """For kernels of all shapes: the fans are Keras's, and nothing is outside."""
    name, config = data.draw(st.sampled_from(RANDOM))
    ours, expected = drawn(name, config, tuple(shape), seed), distribution_of(name, config, tuple(shape))
    low, high = expected.support()
    margin = 1e-5 * expected.std()
    assert low - margin <= float(ours.min())
    assert float(ours.max()) <= high + margin
    # Eight deviations of a mean of so many numbers, and of their variance: the fourth moment is below 3 variances².
    count, variance = ours.numel(), expected.var()
    assert float(ours.double().mean()) == pytest.approx(expected.mean(), abs=8 * math.sqrt(variance / count))
    if count > 100:
        spread = float((ours.double() - expected.mean()).square().mean())
        assert spread == pytest.approx(variance, rel=8 * math.sqrt(2 / count))


@pytest.mark.parametrize(("name", "config"), RANDOM, ids=str)
def test_keras_draws_from_the_same_distribution(name, config):
    """The formulas above are those of Keras itself."""
    keras.utils.set_random_seed(1)
    theirs = keras.initializers.get({"class_name": name, "config": config})(KERNELS[1])
    assert stats.kstest(theirs.flatten().numpy(), distribution_of(name, config, KERNELS[1]).cdf).pvalue > 1e-4


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
    assert fans(shape) == compute_fans(shape)


def test_fans_over_axes_that_are_named():
    shape, axes = (3, 2, 5, 6), {"input_axes": [0, 2], "output_axes": [1, -1]}
    assert fans(shape, (0, 2), (1, -1)) == compute_fans(shape, **axes) == (15, 12)
    one, other = drawn("he_uniform", axes, shape), drawn("he_uniform", {}, shape)
    torch.testing.assert_close(one / other, torch.full(shape, math.sqrt(30 / 15)))


LEGACY = {
    "uniform": "random_uniform",
    "normal": "random_normal",
    "zero": "zeros",
    "one": "ones",
    "GlorotUniformV2": "glorot_uniform",
    "glorot_normalV2": "glorot_normal",
    "ZerosV2": "zeros",
    "VarianceScalingV2": "variance_scaling",
    "OrthogonalInitializer": "orthogonal",
    "IdentityInitializer": "identity",
}


@pytest.mark.parametrize("name", LEGACY)
def test_names_of_earlier_versions(name):
    expected = INITIALIZERS[LEGACY[name]]
    assert type(Holder(initial=name).initial) is expected
    assert type(Holder(initial={"class_name": name, "config": {"seed": 3, "dtype": "float32"}}).initial) is expected


def test_null_is_what_keras_takes_where_none_is_given():
    layer = keras.layers.Dense(30, kernel_initializer=None)
    layer.build((None, 20))
    assert float(layer.kernel.value.detach().abs().max()) <= math.sqrt(6 / 50)
    assert Holder(initial=None).initial == INITIALIZERS["glorot_uniform"]()


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
        (
            "glorot_uniforn",
            f'unknown initialiser "glorot_uniforn"\n    allowed: {NAMES}\n    did you mean "glorot_uniform"?',
        ),
        (3, f"3 is not the name of an initialiser\n    allowed: {NAMES}"),
        ({"config": {}}, f"null is not the name of an initialiser\n    allowed: {NAMES}"),
    ],
)
def test_what_is_no_initialiser(given, message):
    with pytest.raises(Refused) as refused:
        parse(Dense, {"units": 1, "kernel_initializer": given}, "c")
    assert str(refused.value) == f"c.kernel_initializer: {message}"


def test_every_problem_of_a_config_is_said():
    config = {"scale": 0, "mode": "fan", "distribution": "normale", "sed": 1}
    with pytest.raises(Refused) as refused:
        parse(Dense, {"units": 1, "bias_initializer": {"class_name": "VarianceScaling", "config": config}}, "c")
    assert str(refused.value) == (
        "c.bias_initializer.config.scale: 0 does not fit\n    allowed: greater than 0\n"
        'c.bias_initializer.config.mode: unknown mode "fan"\n'
        '    allowed: fan_in, fan_out, fan_avg\n    did you mean "fan_in"?\n'
        'c.bias_initializer.config.distribution: unknown distribution "normale"\n'
        "    allowed: truncated_normal, untruncated_normal, uniform\n"
        "c.bias_initializer.config.sed: unknown key\n"
        "    allowed: seed, dtype, scale, mode, distribution, input_axes, output_axes\n"
        '    did you mean "seed"?'
    )


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


def pairs_of(name, more):
    """(our weight, our value in Keras's layout, Keras's variable) of each weight of a layer."""
    shape, config = WITH_WEIGHTS[name]
    theirs = getattr(keras.layers, name)(**config, **more)
    theirs.build((None, *shape))
    layer = {"class_name": name, "config": {**config, **{k: keras.initializers.serialize(v) for k, v in more.items()}}}
    network = infer(read([layer], "layers", Path()), (shape[-1], *shape[:-1]))
    (ours,) = network.unique
    module = build(network, 3).get_submodule(ours.key)
    assert len(ours.weights) == len(theirs.weights)
    for weight, variable in zip(ours.weights, theirs.weights, strict=True):
        values = getattr(module, weight.attribute).detach()
        back = sorted(range(values.ndim), key=weight.axes.__getitem__) if weight.axes else range(values.ndim)
        yield weight, values.permute(*back), variable


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_each_weight_of_each_layer_has_its_own_initialiser(name):
    """Constants tell them apart, and a layer that says nothing begins as Keras's does."""
    kind, config = getattr(keras.layers, name), WITH_WEIGHTS[name][1]
    keys = [key for key in kind(**config).get_config() if key.endswith("_initializer")]
    more = {key: keras.initializers.Constant(float(place)) for place, key in enumerate(keys, start=1)}
    for _, values, variable in pairs_of(name, more):
        assert torch.equal(values, variable.value.detach())
    for weight, values, variable in pairs_of(name, {}):
        # The fans are taken of this shape.
        assert weight.shape == tuple(values.shape) == tuple(variable.shape)
        if "kernel" in weight.name:
            limit = math.sqrt(6 / sum(compute_fans(variable.shape)))
            assert isinstance(weight.initializer, INITIALIZERS["glorot_uniform"])
            assert 0.5 * limit < float(values.abs().max()) <= limit
        else:
            assert torch.equal(values, variable.value.detach())


def test_a_weight_depends_on_seed_and_names_alone():
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
