import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rml_core.checkpoints import native
from rml_core.config.problem import Refused, RunFailed

WHERE = "neural_network.checkpoints.save"


def state(run_id="a", started=1.0, epoch=1, batch=0, **more):
    weights = {"dense.weight": torch.full((3, 4), float(epoch)), "dense.bias": torch.zeros(3)}
    return {"run_id": run_id, "started": started, "epoch": epoch, "batch": batch, "network": weights, **more}


def save(folder, **keys):
    content = state(**keys)
    path = native.interrupted_path(folder) if content["batch"] else native.epoch_path(folder, content["epoch"])
    native.write(content, path)
    return path


def refusal(path):
    with pytest.raises(Refused) as refused:
        native.read(path, WHERE)
    return str(refused.value)


class Malicious:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


def test_names(tmp_path):
    names = native.epoch_path(tmp_path, 12), native.interrupted_path(tmp_path), native.best_path(tmp_path)
    assert [path.name for path in names] == [
        "model_checkpoint_12.pt",
        "model_checkpoint_interrupted.pt",
        "model_checkpoint_best.pt",
    ]


def test_what_was_written_is_read(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(4))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    written = state(
        optimizer=optimizer.state_dict(), random={"cpu": torch.get_rng_state()}, classes=["a", "b"], none=None
    )
    path = tmp_path / "new" / "folder" / "model_checkpoint_1.pt"
    native.write(written, path)
    read = native.read(path, WHERE)
    assert read.keys() == written.keys()
    assert torch.equal(read["network"]["dense.weight"], written["network"]["dense.weight"])
    assert torch.equal(read["random"]["cpu"], written["random"]["cpu"])
    assert torch.equal(read["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert (read["classes"], read["none"], read["started"]) == (["a", "b"], None, 1.0)
    assert os.listdir(path.parent) == [path.name]


def test_what_could_not_be_read_is_not_written(tmp_path):
    path = save(tmp_path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"^a checkpoint holds plain values and tensors, not pathlib\."):
        native.write(state(folder=Path("/")), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_leaves_the_earlier_checkpoints_whole(tmp_path, monkeypatch):
    earlier = save(tmp_path)
    before = earlier.read_bytes()
    # The unfinished file lies on a device that is full.
    unfinished = tmp_path / f".model_checkpoint_2.pt.{os.getpid()}"
    unfinished.symlink_to("/dev/full")
    monkeypatch.setattr(native, "another", lambda path: unfinished)
    with pytest.raises(RunFailed) as failed:
        save(tmp_path, epoch=2)
    path = native.epoch_path(tmp_path, 2)
    assert str(failed.value) == f"{path}: No space left on device; the earlier checkpoints are whole"
    assert os.listdir(tmp_path) == [earlier.name]
    assert earlier.read_bytes() == before


FILLING = """
import resource, sys
from pathlib import Path
import torch
from rml_core.checkpoints import native
from rml_core.config.problem import RunFailed

state = {"run_id": "a", "started": 1.0, "epoch": 1, "batch": 0, "network": {"w": torch.zeros(5000)}}
path = Path(sys.argv[1], "model_checkpoint_1.pt")
native.write(state, path)
size, before = path.stat().st_size, path.read_bytes()
for limit in [0, 1, 64, 800, 900, 5000, size - 1200, size - 300, size - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        native.write(state, path)
    except RunFailed as failed:
        assert str(failed) == f"{path}: File too large; the earlier checkpoints are whole", failed
    else:
        raise AssertionError(f"{limit} bytes were enough")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
native.write(state, path)
"""


def test_room_that_ends_at_any_place(tmp_path):
    done = subprocess.run([sys.executable, "-c", FILLING, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "folder" / "model_checkpoint_1.pt"
    with pytest.raises(RunFailed) as failed:
        native.write(state(), path)
    assert str(failed.value) == f"{path}: Not a directory; the earlier checkpoints are whole"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".model_checkpoint_1.pt.{process.pid}").write_bytes(b"half")
    alive = tmp_path / f".model_checkpoint_1.pt.{os.getppid()}"
    alive.touch()
    path = save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, path.name])


def test_a_file_that_is_not_there(tmp_path):
    assert refusal(tmp_path / "x.pt") == f"{WHERE}: {tmp_path}/x.pt: no such file or directory"
    assert refusal(tmp_path) == f"{WHERE}: {tmp_path}: is a directory"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10**6))
def test_cut_short(tmp_path, cut):
    path = save(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    assert refusal(path) == (
        f"{WHERE}: {path} is cut short\n"
        "    it was not written or copied to its end; take an earlier one, or copy it again"
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), bits=st.integers(1, 255))
# The mark of a folder on the first tensor.
@example(place=1640, bits=16)
def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path, place, bits):
    path = save(tmp_path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= bits
    path.write_bytes(content)
    try:
        read = native.read(path, WHERE)
    except Refused:
        return
    assert all(torch.equal(value, state()["network"][name]) for name, value in read["network"].items())
    assert (read["run_id"], read["started"], read["epoch"], read["batch"]) == ("a", 1.0, 1, 0)


def test_a_changed_weight(tmp_path):
    path = save(tmp_path, epoch=7)
    content = path.read_bytes()
    weights = torch.full((3, 4), 7.0).numpy().tobytes()
    path.write_bytes(content.replace(weights, weights[:-1] + b"\x00"))
    assert refusal(path) == f"{WHERE}: {path} is damaged\n    take an earlier one, or copy it again"


@pytest.mark.parametrize("content", [b"hello", b"\x80nonsense", b'{"a": 1}', b"\x00" * 1000])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "model_checkpoint_1.pt"
    path.write_bytes(content)
    assert refusal(path) == (
        f"{WHERE}: {path} is not a file with weights\n"
        "    allowed: a checkpoint of a run, a state_dict that torch.save wrote, a libtorch archive, or Keras's "
        "weights (.h5, .weights.h5, .keras)"
    )


@pytest.mark.parametrize("saved", [{"weight": torch.zeros(2)}, [1, 2], {"run_id": "a", "epoch": 1}])
def test_not_a_runs_checkpoint(tmp_path, saved):
    path = tmp_path / "weights.pt"
    torch.save(saved, path)
    assert refusal(path) == f'{WHERE}: {path} is not a checkpoint of a run\n    weights alone go to "load"'


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "old pickle"])
def test_code_is_never_executed(tmp_path, how):
    proof, path = tmp_path / "executed", tmp_path / "model_checkpoint_1.pt"
    content = state(evil=Malicious(proof))
    if how in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    else:
        path.write_bytes(pickle.dumps({"evil": Malicious(proof)}, protocol=4 if how == "pickle" else 2))
    assert refusal(path) == (
        f"{WHERE}: {path} would execute code when it is read (posix.system); it was not read\n"
        "    save weights alone: torch.save(model.state_dict(), FILE)"
    )
    assert native.newest(tmp_path) == (
        None,
        [f"passed over: {path} would execute code when it is read (posix.system); it was not read"],
    )
    assert not proof.exists()
    # The same file does execute it where it is not read with care.
    if how != "pickle":
        torch.load(path, weights_only=False) if how != "old pickle" else pickle.loads(path.read_bytes())
        assert proof.exists()


def test_the_newest_of_one_run(tmp_path):
    assert native.newest(tmp_path) == (None, [])
    assert native.newest(tmp_path / "missing") == (None, [])
    for epoch in (1, 2, 10, 9):
        save(tmp_path, epoch=epoch)
    native.write(state(epoch=12), native.best_path(tmp_path))
    assert native.newest(tmp_path) == (native.epoch_path(tmp_path, 10), [])


@pytest.mark.parametrize(
    ("interrupted", "chosen"),
    [
        ({"epoch": 4, "batch": 3}, True),
        ({"epoch": 3, "batch": 3}, False),
        ({"epoch": 4, "batch": 3, "run_id": "old", "started": 0.5}, False),
        ({"epoch": 1, "batch": 1, "run_id": "new", "started": 2.0}, True),
    ],
)
def test_the_interrupted_one(tmp_path, interrupted, chosen):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch=epoch)
    path = save(tmp_path, **interrupted)
    assert native.newest(tmp_path) == (path if chosen else native.epoch_path(tmp_path, 3), [])


def test_a_run_that_has_begun_and_saved_nothing_is_the_latest(tmp_path):
    save(tmp_path, epoch=3)
    native.begin(tmp_path, "new", 2.0)
    said = f"passed over: an older run's checkpoints in {tmp_path}; the latest run has left none"
    assert native.newest(tmp_path) == (None, [said])
    first = save(tmp_path, run_id="new", started=2.0, epoch=1)
    assert native.newest(tmp_path) == (first, [])
    # Copied from elsewhere, and newer than anything that has run here.
    copied = save(tmp_path, run_id="newest", started=3.0, epoch=2)
    assert native.newest(tmp_path) == (copied, [])


def test_a_note_that_makes_no_sense_is_none(tmp_path):
    native.begin(tmp_path / "folder", "new", 2.0)
    (note,) = (tmp_path / "folder").iterdir()
    path = save(tmp_path / "folder")
    for text in ("", "[]", "{}", '{"run_id": "x", "started": "soon"}'):
        note.write_text(text)
        assert native.newest(tmp_path / "folder") == (path, [])


def test_a_run_cannot_begin_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed) as failed:
        native.begin(tmp_path / "file", "new", 2.0)
    note = tmp_path / "file" / ".latest_run.json"
    assert str(failed.value) == f"{note}: File exists; the earlier checkpoints are whole"


def test_an_interrupted_one_between_epochs_is_preferred(tmp_path):
    save(tmp_path, epoch=3)
    native.write(state(epoch=3), native.interrupted_path(tmp_path))
    assert native.newest(tmp_path) == (native.interrupted_path(tmp_path), [])


def test_runs_are_never_mixed(tmp_path):
    for epoch in (1, 2, 3, 4):
        save(tmp_path, run_id="old", started=1.0, epoch=epoch)
    for epoch in (1, 2):
        save(tmp_path, run_id="new", started=2.0, epoch=epoch)
    assert native.newest(tmp_path) == (native.epoch_path(tmp_path, 2), [])
    native.prune(tmp_path, "new", 2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"model_checkpoint_{n}.pt" for n in (2, 3, 4)]


def test_what_cannot_be_read_is_passed_over(tmp_path):
    for epoch in (1, 2, 3, 4, 5):
        save(tmp_path, epoch=epoch)
    cut, foreign, damaged = (native.epoch_path(tmp_path, epoch) for epoch in (3, 4, 5))
    cut.write_bytes(cut.read_bytes()[:-100])
    torch.save({"weight": torch.zeros(1)}, foreign)
    content = damaged.read_bytes()
    weights = torch.full((3, 4), 5.0).numpy().tobytes()
    damaged.write_bytes(content.replace(weights, weights[:-1] + b"\x00"))
    assert native.newest(tmp_path) == (
        native.epoch_path(tmp_path, 2),
        [
            f"passed over: {cut} is cut short",
            f"passed over: {foreign} is not a checkpoint of a run",
            f"passed over: {damaged} is damaged",
        ],
    )


def test_the_oldest_epochs_go(tmp_path):
    for epoch in (8, 9, 10, 11):
        save(tmp_path, epoch=epoch)
    save(tmp_path, epoch=12, batch=5)
    native.write(state(epoch=8), native.best_path(tmp_path))
    (tmp_path / "model_checkpoint_7.pt").write_bytes(b"PK")
    native.prune(tmp_path, "a", 11, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model_checkpoint_10.pt",
        "model_checkpoint_11.pt",
        "model_checkpoint_7.pt",
        "model_checkpoint_best.pt",
        "model_checkpoint_interrupted.pt",
    ]


def test_a_later_epoch_that_resuming_passed_over_does_not_push_out_the_one_just_saved(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch=epoch)
    native.prune(tmp_path, "a", 2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_checkpoint_2.pt", "model_checkpoint_3.pt"]


def test_a_file_that_was_replaced_is_looked_at_again(tmp_path):
    save(tmp_path, epoch=1, run_id="a")
    native.prune(tmp_path, "b", 1, 1)
    save(tmp_path, epoch=1, run_id="b", started=2.0)
    save(tmp_path, epoch=2, run_id="b", started=2.0)
    native.prune(tmp_path, "b", 2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["model_checkpoint_2.pt"]
