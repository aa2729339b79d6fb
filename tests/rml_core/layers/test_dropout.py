from pathlib import Path

import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read


def network(class_name, shape, rate):
    return infer(read([{"class_name": class_name, "config": {"rate": rate, "seed": 7}}], "layers", Path()), shape)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
def test_dropout_keeps_the_mean(rate):
    found = network("Dropout", (3, 40, 50), rate)
    module = build(found, 0)
    torch.manual_seed(0)
    y = module(torch.ones(4, 3, 40, 50))
    assert found.random == (rate > 0)
    assert y.unique().tolist() == pytest.approx([1.0] if rate == 0 else [0.0, 1 / (1 - rate)])
    assert float((y == 0).float().mean()) == pytest.approx(rate, abs=0.02)
    assert torch.equal(module.eval()(torch.ones(1, 3, 4, 5)), torch.ones(1, 3, 4, 5))


def test_everything_may_be_dropped():
    assert not build(network("Dropout", (3,), 1.0), 0)(torch.ones(4, 3)).any()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_spatial_dropout_drops_whole_channels(rank):
    module = build(network(f"SpatialDropout{rank}D", (50, *(4,) * rank), 0.4), 0)
    torch.manual_seed(0)
    y = module(torch.ones(20, 50, *(4,) * rank)).flatten(2)
    assert torch.equal(y.amin(-1), y.amax(-1))
    assert float((y.amax(-1) == 0).float().mean()) == pytest.approx(0.4, abs=0.05)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.6])


@pytest.mark.parametrize(
    ("noise", "together"),
    [
        ([None, 1, 1, None], (2, 3)),
        ([None, 1, 1, 1], (1, 2, 3)),
        ([1, None, None, None], (0,)),
        ([None, None, 1, 6], (3,)),
        ([None, 4, 3, 6], ()),
    ],
)
def test_noise_shape_is_in_keras_axes(noise, together):
    """`together`: torch's axes along which all elements are dropped, or none."""
    source = [{"class_name": "Dropout", "config": {"rate": 0.5, "noise_shape": noise}}]
    module = build(infer(read(source, "layers", Path()), (6, 4, 3)), 0)
    torch.manual_seed(0)
    y = module(torch.ones(5, 6, 4, 3))
    dropped = y == 0
    assert y.unique().tolist() == [0.0, 2.0]
    for axis in range(4):
        alike = bool((dropped == dropped.narrow(axis, 0, 1)).all())
        assert alike == (axis in together)
    assert torch.equal(module.eval()(y), y)


def test_a_noise_shape_that_does_not_fit():
    source = [{"class_name": "Dropout", "name": "d", "config": {"rate": 0.5, "noise_shape": [None, 2, 1]}}]
    with pytest.raises(Refused) as refused:
        infer(read(source, "layers", Path()), (6, 4))
    assert str(refused.value) == (
        'layers[0]: layer "d" (Dropout): its noise_shape (?, 2, 1) does not fit its input (?, 4, 6), the batch included'
    )


def test_stochastic_depth_leaves_out_whole_samples():
    source = [{"class_name": "StochasticDepth", "config": {"drop_path_rate": 0.4}}]
    network = infer(read(source, "layers", Path()), (3, 4))
    module = build(network, 0)
    torch.manual_seed(0)
    y = module(torch.ones(500, 3, 4)).flatten(1)
    assert network.random
    assert torch.equal(y.amin(1), y.amax(1))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float((y == 0).float().mean()) == pytest.approx(0.4, abs=0.07)
    assert torch.equal(module.eval()(y[:, :1]), y[:, :1])
