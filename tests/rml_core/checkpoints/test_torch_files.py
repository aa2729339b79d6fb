import subprocess
import sys
import zipfile

import h5py
import pytest
import torch
from torch import nn

from rml_core.checkpoints import FORMATS, Checkpoints, native, weights_of
from rml_core.checkpoints.torch_files import header
from rml_core.config.problem import Refused
from rml_core.config.section import parse

WHERE = "neural_network.checkpoints.load"


def refusal(path):
    with pytest.raises(Refused) as refused:
        weights_of(path, WHERE)
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


def test_a_file_without_weights(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"epoch": 3, "model": {"w": torch.zeros(1)}}, path)
    assert refusal(path) == (
        f'{WHERE}: {path} holds no weights: its keys are ["epoch", "model"]\n'
        "    allowed: tensors by name, as in a state_dict"
    )
    torch.save(torch.zeros(3), path)
    assert refusal(path) == (
        f"{WHERE}: {path} is not a file with weights\n"
        "    allowed: a checkpoint of a run, or a state_dict that torch.save wrote"
    )


def keras_hdf5(path):
    with h5py.File(path, "w") as file:
        file["dense/kernel"] = [1.0]


def keras_3(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "")


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (keras_hdf5, "a Keras HDF5 file"),
        (keras_3, "a Keras 3 archive"),
        (lambda path: torch.jit.script(nn.Linear(2, 2)).save(path), "a libtorch archive"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_formats_that_are_not_read_yet_are_named_whatever_the_file_is_called(tmp_path, write, name):
    path = tmp_path / "model.pt"
    write(path)
    assert refusal(path) == (f"{WHERE}: {path} is {name}: reading it is not available yet\n    allowed: a PyTorch file")


def test_another_archive_is_not_one(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refusal(path).startswith(f"{WHERE}: {path} is not a file with weights\n")


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


def test_section_and_table_need_no_torch():
    code = "import sys, rml_core.checkpoints; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [each.name for each in FORMATS if each.reader] == ["a PyTorch file"]
