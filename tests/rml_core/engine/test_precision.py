from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.data.batches import Batch
from rml_core.engine.precision import Precision, device_named, to_device
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

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
    inputs, targets, kept = to_device(batch, CPU, double)
    assert targets is not None
    assert kept is None
    assert inputs.dtype == targets.dtype == torch.float64
    inputs, targets, _ = to_device(batch._replace(targets=np.zeros(4, np.int64)), CPU, double)
    assert targets is not None
    assert (inputs.dtype, targets.dtype) == (torch.float64, torch.int64)
    assert to_device(batch._replace(targets=None), CPU, double)[1:] == (None, None)
    _, _, kept = to_device(batch._replace(kept=np.array([True, False, True, True])), CPU, double)
    assert kept is not None
    assert kept.tolist() == [True, False, True, True]


def layer(kind: str, **config: object) -> dict[str, object]:
    return {"class_name": kind, "config": config}


NETWORK = [
    layer("Conv2D", filters=4, kernel_size=3, padding="same", use_bias=False),
    layer("BatchNormalization"),
    layer("Activation", activation="swish"),
    layer("DepthwiseConv2D", kernel_size=3, strides=2, padding="same"),
    layer("LayerNormalization"),
    layer("Conv2DTranspose", filters=4, kernel_size=2, strides=2),
    layer("GroupNormalization", groups=2),
    layer("MaxPooling2D", padding="same"),
    layer("UpSampling2D", interpolation="bilinear"),
    layer("AveragePooling2D", pool_size=3, strides=1, padding="same"),
    layer("Conv2D", filters=3, kernel_size=1, activation="softmax"),
]


@pytest.mark.parametrize(("name", "tolerance"), [("bf16", 0.2), ("fp16", 0.03)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_network_in_half_precision_is_nearly_that_in_single(
    name: str, tolerance: float, memory_format: torch.memory_format
):
    """Outputs, gradients and the moving statistics, which stay in float32."""
    networks = []
    torch.manual_seed(0)
    x = torch.randn(4, 2, 8, 8)
    for precision in (Precision.named("single"), Precision.named(name)):
        network = build(infer(read(NETWORK, "layers", Path()), (2, 8, 8)), 1).to(memory_format=memory_format)
        network.train()
        with precision.context(CPU):
            output = network(x.to(memory_format=memory_format))
        (output.float()[:, 0] ** 2).mean().backward()
        network.eval()
        with precision.context(CPU):
            evaluated = network(x)
        gradients = torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None])
        networks.append(
            [output.detach().float(), evaluated.detach().float(), gradients, *network.state_dict().values()]
        )
    for single, half in zip(*networks, strict=True):
        assert half.dtype == torch.float32
        assert float((single - half).norm()) <= tolerance * float(single.norm())


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("last", ["softmax", "log_softmax", "sigmoid"])
@pytest.mark.parametrize("behind", [[], [layer("Reshape", target_shape=[2, 2, 3]), layer("Dropout", rate=0.0)]])
def test_probabilities_keep_the_digits_of_single_precision(name: str, last: str, behind: list[dict[str, object]]):
    """Near 1 half precision has three of them: a loss could not tell such samples apart."""
    source = [layer("Conv1D", filters=3, kernel_size=1), layer("Activation", activation=last), *behind]
    network = build(infer(read(source, "layers", Path()), (2, 4)), 1)
    with Precision.named(name).context(CPU):
        logits = network.get_submodule("conv1d")(torch.full((1, 2, 4), 9.0)).float()
        output = network(torch.full((1, 2, 4), 9.0))
    expected = torch.sigmoid(logits) if last == "sigmoid" else getattr(torch, last)(logits, 1)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.flatten(), expected.flatten())
