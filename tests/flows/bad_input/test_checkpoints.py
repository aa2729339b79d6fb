"""Checkpoints that are not what they should be: nothing in them is executed, nothing else is lost."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Rml = Callable[..., tuple[int, str, str]]

CLASSES = "classes left -> 0, right -> 1\n"


class Evil:
    """Unpickled, it makes the file `executed`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder / "executed"),)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


CUT = "{path} is cut short\n    it was not written or copied to its end; take an earlier one, or copy it again"
NO_WEIGHTS = (
    "{path} is not a file with weights\n    allowed: a checkpoint of a run, a state_dict that torch.save wrote, a "
    "libtorch archive, or Keras's weights (.h5, .weights.h5, .keras)"
)
EXECUTES = (
    "{path} would execute code when it is read (posix.mkdir); it was not read\n"
    "    save weights alone: torch.save(model.state_dict(), FILE)"
)
NONE_FITS = (
    "nothing in {path} fits a layer of the network\n    allowed: weights of conv, dense\n"
    "    the file has other: load another one, or give the layers its names"
)

BAD_CHECKPOINTS: dict[str, tuple[Callable[[bytes, Path], bytes], str]] = {
    "half": (lambda whole, folder: whole[: len(whole) // 2], CUT),
    "its last bytes missing": (lambda whole, folder: whole[:-10], CUT),
    "empty": (lambda whole, folder: b"", CUT),
    "text": (lambda whole, folder: b"epoch 1, loss 0.5", NO_WEIGHTS),
    "code in an archive": (lambda whole, folder: saved({"network": Evil(folder)}), EXECUTES),
    "code in a pickle": (lambda whole, folder: pickle.dumps(Evil(folder)), EXECUTES),
    "another network": (lambda whole, folder: saved({"other.weight": torch.zeros(3)}), NONE_FITS),
}


@pytest.mark.parametrize("bad", BAD_CHECKPOINTS)
def test_a_bad_file_to_load(own: dict[str, Any], run: Rml, refuses: Any, bad: str, tmp_path: Path):
    assert run(own)[0] == 0
    path = tmp_path / "weights.pt"
    make, problem = BAD_CHECKPOINTS[bad]
    path.write_bytes(make((tmp_path / "checkpoints" / "model_checkpoint_1.pt").read_bytes(), tmp_path))
    own["checkpoints"]["load"] = "weights.pt"
    # Only torch can tell these two apart from weights that fit.
    late = bad in ("code in an archive", "another network")
    problem = "neural_network.checkpoints.load: " + problem.format(path=path)
    refuses(own, problem, output=CLASSES if late else "")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("bad", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_passed_over_when_resuming(own: dict[str, Any], run: Rml, bad: str, tmp_path: Path):
    assert run(own)[0] == 0
    good = tmp_path / "checkpoints" / "model_checkpoint_1.pt"
    before = good.read_bytes()
    make, problem = BAD_CHECKPOINTS[bad]
    path = tmp_path / "checkpoints" / "model_checkpoint_2.pt"
    path.write_bytes(make(before, tmp_path))
    own["num_epochs"] = 2
    status, output, errors = run(own, "--resume", "auto")
    what = problem.format(path=path).splitlines()[0]
    if bad == "another network":
        what = f"{path} is not a checkpoint of a run"
    assert (status, errors) == (0, f"passed over: {what}\n")
    assert output.startswith(f"resuming {good} (after epoch 1)\n")
    assert good.read_bytes() == before
    assert torch.load(path, weights_only=True)["epoch"] == 2
    assert not (tmp_path / "executed").exists()


def test_a_file_to_load_that_is_not_there(own: dict[str, Any], refuses: Any, tmp_path: Path):
    own["checkpoints"]["load"] = "weights.pt"
    where = "neural_network.checkpoints.load"
    refuses(own, f"{where}: {tmp_path}/weights.pt does not exist\n    allowed: a file with weights")
    own["checkpoints"]["load"] = "train"
    refuses(own, f"{where}: {tmp_path}/train is a folder\n    allowed: a file with weights")
