import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from rml_core.checkpoints import FORMATS, Checkpoints, native, read
from rml_core.checkpoints.torch_files import header
from rml_core.config.problem import Refused
from rml_core.config.section import parse

WHERE = "neural_network.checkpoints.load"


READ = (
    "a checkpoint of a run, a state_dict that torch.save wrote, a libtorch archive, or Keras's weights "
    "(.h5, .weights.h5, .keras)"
)


def weights_of(path, where):
    """`<layer>.<weight>` to its values."""
    return {f"{held.name}.{name}": value for held in read(path, where).held for name, value in held.weights}


def refusal(path):
    with pytest.raises(Refused) as refused:
        read(path, WHERE)
    return str(refused.value)


def test_weights_of_a_runs_checkpoint(tmp_path):
    path = tmp_path / "model_checkpoint_1.pt"
    network = {"dense.weight": torch.randn(3, 4)}
    saved = {"run_id": "a", "started": 1.0, "epoch": 1, "batch": 0, "classes": ["cat", "dog"], "network": network}
    native.write(saved, path)
    assert torch.equal(weights_of(path, WHERE)["dense.weight"], network["dense.weight"])
    assert header(path, WHERE)["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_a_state_dict(tmp_path, legacy):
    path, module = tmp_path / "weights.pth", nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    weights = weights_of(path, WHERE)
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in weights.items())
    assert header(path, WHERE) is None


def test_a_legacy_file_that_is_cut_short(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for size in (0, 5, 20, 100, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert refusal(path).split("\n")[0] in (f"{WHERE}: {path} is cut short", f"{WHERE}: {path} is damaged")


def test_a_whole_module_would_execute_code(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path)
    assert refusal(path) == (
        f"{WHERE}: {path} would execute code when it is read (torch.nn.modules.linear.Linear); it was not read\n"
        "    save weights alone: torch.save(model.state_dict(), FILE)"
    )


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "anything"])
def test_a_state_dict_beside_other_things(tmp_path, key):
    path, state = tmp_path / "x.pt", nn.Linear(2, 3).state_dict()
    optimizer = torch.optim.Adam(nn.Linear(2, 3).parameters()).state_dict()
    torch.save({"epoch": 3, key: {f"dense.{name}": value for name, value in state.items()}, "opt": optimizer}, path)
    assert torch.equal(weights_of(path, WHERE)["dense.weight"], state["weight"])


def test_a_file_with_the_weights_of_two_networks(tmp_path):
    path, state = tmp_path / "x.pt", nn.Linear(2, 3).state_dict()
    torch.save({"generator": state, "critic": state}, path)
    assert refusal(path) == (
        f"{WHERE}: {path} holds the weights of several networks: generator, critic\n"
        "    allowed: tensors by name, as in a state_dict\n"
        '    save those of one: torch.save(torch.load(FILE)["NAME"], "weights.pt")'
    )


def test_a_file_without_weights(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"epoch": 3, "model": {"w": 1}}, path)
    assert refusal(path) == (
        f'{WHERE}: {path} holds no weights: its keys are ["epoch", "model"]\n'
        "    allowed: tensors by name, as in a state_dict"
    )
    torch.save(torch.zeros(3), path)
    assert refusal(path) == f"{WHERE}: {path} is not a file with weights\n    allowed: {READ}"


def test_another_archive_is_not_one(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refusal(path) == f"{WHERE}: {path} is not a file with weights\n    allowed: {READ}"


def test_the_section():
    assert parse(Checkpoints, {}, "").model_dump() == {
        "save": None,
        "interval": 1,
        "load": None,
        "keep": None,
        "best": False,
        "resume": None,
    }
    with pytest.raises(Refused) as refused:
        parse(Checkpoints, {"interval": 0, "keep": 0, "path": "x"}, "checkpoints")
    assert str(refused.value) == (
        "checkpoints.interval: 0 does not fit\n    allowed: greater than or equal to 1\n"
        "checkpoints.keep: 0 does not fit\n    allowed: greater than or equal to 1\n"
        "checkpoints.path: unknown key\n    allowed: save, interval, load, resume, keep, best"
    )


def test_section_and_table_need_neither_torch_nor_h5py():
    code = "import sys, rml_core.checkpoints; assert not {'torch', 'h5py', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [each.name for each in FORMATS] == [
        "a PyTorch file",
        "a libtorch archive",
        "a Keras HDF5 file (`.h5`)",
        "Keras 3 weights (`.weights.h5`)",
        "a Keras 3 archive (`.keras`)",
    ]
