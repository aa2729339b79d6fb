from pathlib import Path

import pytest
import torch

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
