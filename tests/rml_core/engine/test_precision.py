from __future__ import annotations

import numpy as np
import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.data.batches import Batch
from rml_core.engine.precision import Precision, device_named, to_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype", "product", "scaled"),
    [
        ("single", torch.float32, torch.float32, False),
        ("double", torch.float64, torch.float64, False),
        ("bf16", torch.float32, torch.bfloat16, False),
        ("fp16", torch.float32, torch.float16, True),
    ],
)
def test_types(name: str, dtype: torch.dtype, product: torch.dtype, scaled: bool):
    precision = Precision.named(name)
    assert (precision.dtype, precision.scaled) == (dtype, scaled)
    values = torch.ones(2, 2, dtype=dtype)
    with precision.context(CPU):
        assert (values @ values).dtype == product
    assert (values @ values).dtype == dtype


@pytest.mark.parametrize(
    ("count", "name", "rank", "device"),
    [
        (0, "auto", 0, "cpu"),
        (0, "auto", 3, "cpu"),
        (2, "auto", 0, "cuda:0"),
        (2, "auto", 3, "cuda:1"),
        (2, "cpu", 0, "cpu"),
        (2, "cuda", 0, "cuda:0"),
        (2, "cuda:1", 0, "cuda:1"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, count: int, name: str, rank: int, device: str):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    try:
        assert str(device_named(name, rank)) == device
        if device != "cpu":
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, count: int, name: str):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    allowed = {0: "auto, cpu", 1: "auto, cpu, cuda:0", 2: "auto, cpu, cuda:0 to cuda:1"}[count]
    with pytest.raises(Refused) as refused:
        device_named(name)
    assert str(refused.value) == (
        f'neural_network.device: "{name}" is not there: this machine has {count} GPUs\n    allowed: {allowed}'
    )


def test_a_batch_is_of_the_networks_type():
    batch = Batch(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32), np.arange(4))
    double = Precision.named("double")
    inputs, targets = to_device(batch, CPU, double)
    assert targets is not None
    assert inputs.dtype == targets.dtype == torch.float64
    inputs, targets = to_device(batch._replace(targets=np.zeros(4, np.int64)), CPU, double)
    assert targets is not None
    assert (inputs.dtype, targets.dtype) == (torch.float64, torch.int64)
    assert to_device(batch._replace(targets=None), CPU, double)[1] is None
