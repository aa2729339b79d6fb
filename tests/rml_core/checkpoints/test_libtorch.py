"""Archives that `torch.jit.save` and C++ write: read without compiling or running what is in them."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from rml_core.checkpoints import match, read
from rml_core.checkpoints.torch_files import header
from rml_core.config.problem import Refused

WHERE = "neural_network.checkpoints.load"
ORACLES = Path(__file__).parents[2] / "oracles"

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3, bias=False))
        self.tied = self.head[2]
        self.scale = 0.5
        self.sizes = [1, 2]
        self.to(dtype)

    def forward(self, x):
        return self.head(torch.flatten(self.norm(self.conv(x)), 2)[..., :4]) * self.scale


def weights_of(path):
    return {f"{held.name}.{name}": value for held in read(path, WHERE).held for name, value in held.weights}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_parameters_of_a_script(tmp_path, dtype):
    path, net = tmp_path / "model.pt", Net(dtype)
    torch.jit.save(torch.jit.script(net), path)
    weights = weights_of(path)
    assert weights.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert weights[name].dtype == value.dtype
        assert torch.equal(weights[name], value)
    assert header(path, WHERE) is None


def test_the_parameters_of_a_trace_whose_tensors_are_views(tmp_path):
    path, net = tmp_path / "model.pt", Net()
    base = torch.rand(2, 4, 3, 3)
    net.conv.weight = nn.Parameter(base[:, 1:2].transpose(2, 3))
    torch.jit.save(torch.jit.trace(net, torch.rand(1, 1, 4, 4)), path)
    assert torch.equal(weights_of(path)["conv.weight"], net.conv.weight)


def test_they_go_to_the_layers_of_their_names(tmp_path, network, layers_of):
    path, net = tmp_path / "model.pt", Net()
    torch.jit.save(torch.jit.script(net), path)
    assert match.load_into(network, read(path, WHERE), layers_of(network)) == [
        "Skipping layer head.0: not found in model",
        "Skipping layer head.2: not found in model",
        "Skipping layer tied: not found in model",
        "Loaded 2 of the network's 3 layers with weights, skipped 3; as they began: dense/a",
    ]
    assert torch.equal(network["conv"].weight, net.conv.weight)
    assert torch.equal(network["norm"].running_var, net.norm.running_var)


def test_what_cpp_writes():
    """`tests/oracles/libtorch.cpp` fills one parameter after the other with 0, 1/8, 2/8, ..., each one further on."""
    weights = weights_of(ORACLES / "libtorch.pt")
    expected = {"conv.weight": (2, 1, 3, 3), "conv.bias": (2,), "norm.weight": (2,), "norm.bias": (2,)}
    expected |= {"head.0.weight": (3, 4), "head.0.bias": (3,)}
    for start, (name, shape) in enumerate(expected.items()):
        values = torch.arange(torch.Size(shape).numel()) / 8 + start
        assert torch.equal(weights[name], values.view(shape))
    assert weights["norm.running_var"].tolist() == [1, 1]


# --- files that are not as they should be


def refusal(path):
    with pytest.raises(Refused) as refused:
        read(path, WHERE)
    return str(refused.value)


def with_pickle(path, content):
    """The archive at `path` with other content in its pickle."""
    changed = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            new.writestr(member, content if member.endswith("/data.pkl") else old.read(member))
    return changed


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(Net()), path)
    return path


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "executed"),)


def test_nothing_is_executed(script, tmp_path):
    path = with_pickle(script, pickle.dumps(Evil(tmp_path)))
    assert refusal(path) == (
        f"{WHERE}: {path} would execute code when it is read (posix.mkdir); it was not read\n"
        "    save weights alone: torch.save(model.state_dict(), FILE)"
    )
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["__torch__.builtins\nexec", "__torch__\neval"])
def test_a_class_of_the_archive_is_nothing_but_a_bag(script, name):
    """Called, it takes no arguments."""
    path = with_pickle(script, f"c{name}\n(S'1'\ntR.".encode())
    assert refusal(path) == f"{WHERE}: {path} is damaged\n    take an earlier one, or copy it again"


def test_an_archive_without_tensors(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(nn.ReLU()), path)
    what = "holds no weights: it is a libtorch archive without a module's parameters"
    assert refusal(path) == f"{WHERE}: {path} {what}"


def test_damaged_archives(script, tmp_path):
    whole = script.read_bytes()
    path = tmp_path / "damaged.pt"
    cut = (
        f"{WHERE}: {path} is cut short\n"
        "    it was not written or copied to its end; take an earlier one, or copy it again"
    )
    for size in range(0, len(whole) - 1, len(whole) // 20):
        path.write_bytes(whole[:size])
        assert refusal(path) == cut
    damaged = f"{WHERE}: {path} is damaged\n    take an earlier one, or copy it again"
    with zipfile.ZipFile(script) as archive:
        member = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
    start = whole.index(b"data/0", member.header_offset)
    for place in (start + 80, whole.index(b"conv", 0)):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        assert refusal(path) == damaged


def test_pickles_that_make_no_sense(script):
    """They are refused, or what they have come to say is read; nothing else happens."""
    with zipfile.ZipFile(script) as archive:
        name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
        content = archive.read(name)
    said = []
    for size in range(0, len(content), len(content) // 15):
        path = with_pickle(script, content[:size] + b".")
        try:
            read(path, WHERE)
        except Refused as refused:
            said.append(str(refused))
    assert len(said) > 10
    assert all(each.startswith(f"{WHERE}: {path} ") for each in said)
