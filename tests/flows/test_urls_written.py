"""Runs that write behind URLs: a folder in memory stands for what can be listed, read, written and renamed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from rml_core.checkpoints import native
from rml_core.config import remote
from rml_core.config.paths import resolve

Rml = Callable[..., tuple[int, str, str]]


@pytest.fixture
def section(section: dict[str, Any], in_memory: Any) -> dict[str, Any]:
    section["checkpoints"] = {"save": "memory://store/saved"}
    section["data"]["test_output_path"] = "memory://store/predictions"
    section["num_epochs"] = 2
    return section


def names(in_memory: Any) -> list[str]:
    return sorted(path.removeprefix("/store/") for path in in_memory.find("/store"))


def weights(in_memory: Any, name: str) -> dict[str, torch.Tensor]:
    with in_memory.open(f"/store/saved/{name}") as file:
        return torch.load(file, weights_only=True)["network"]


def test_what_is_written_is_what_a_run_leaves_on_this_machine(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, tmp_path: Path, in_memory: Any
) -> None:
    status, output, errors = rml("run", run_file({"neural_network": section}), "--untracked")
    assert (status, errors) == (0, "")
    assert output.endswith(
        "  memory://store/saved/model_checkpoint_2.pt, the newest of 2\n  memory://store/predictions/output_2.h5\n"
    )
    assert names(in_memory) == [
        *("predictions/output_1.h5", "predictions/output_2.h5", "saved/.latest_run.json"),
        *("saved/model_checkpoint_1.pt", "saved/model_checkpoint_2.pt"),
    ]
    section["checkpoints"]["save"] = "saved"
    section["data"]["test_output_path"] = "predictions"
    assert rml("run", run_file({"neural_network": section}), "--untracked")[0] == 0
    there = weights(in_memory, "model_checkpoint_2.pt")
    here = torch.load(tmp_path / "saved" / "model_checkpoint_2.pt", weights_only=True)["network"]
    assert all(torch.equal(values, here[name]) for name, values in there.items())
    in_memory.get_file("/store/predictions/output_2.h5", str(tmp_path / "fetched.h5"))
    with h5py.File(tmp_path / "fetched.h5") as one, h5py.File(tmp_path / "predictions" / "output_2.h5") as other:
        for label in other:
            for name in other[label]:
                assert one[label][name][()].tolist() == other[label][name][()].tolist()


def test_a_run_file_behind_a_url_writes_beside_itself(
    section: dict[str, Any], rml: Rml, tmp_path: Path, in_memory: Any
) -> None:
    section["checkpoints"] = {"save": "saved"}
    section["data"]["test_output_path"] = "predictions"
    in_memory.pipe_file("/store/run.json", json.dumps({"neural_network": section}).encode())
    assert rml("run", "memory://store/run.json", "--untracked") == (
        *(2, ""),
        "memory://store/run.json: 1 problem\n\n"
        'neural_network.outfile: "memory://store/out.txt" is behind a URL, which takes no lines one after the other\n'
        "    allowed: a path of this machine, as logs/out.txt\n",
    )
    out = ("--set", f"outfile={tmp_path}/out.txt")
    assert rml("run", "memory://store/run.json", "--untracked", *out)[0] == 0
    assert "saved/model_checkpoint_2.pt" in names(in_memory)


def test_a_run_goes_on_bit_by_bit(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, in_memory: Any
) -> None:
    section["num_epochs"] = 3
    section["data"]["shuffle"] = True
    path = run_file({"neural_network": section})
    assert rml("run", path, "--untracked")[0] == 0
    straight = weights(in_memory, "model_checkpoint_3.pt")
    in_memory.rm("/store", recursive=True)
    assert rml("run", path, "--untracked", "--set", "num_epochs=2")[0] == 0
    status, output, errors = rml("run", path, "--untracked", "--resume", "auto")
    assert (status, errors) == (0, "")
    assert output.startswith("resuming memory://store/saved/model_checkpoint_2.pt (after epoch 2)\n")
    resumed = weights(in_memory, "model_checkpoint_3.pt")
    assert all(torch.equal(values, resumed[name]) for name, values in straight.items())


def test_what_was_interrupted_goes_on_and_goes(
    section: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Rml,
    in_memory: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = run_file({"neural_network": section})
    write = native.write

    def interrupting(state: Any, where: Any) -> None:
        write(state, where)
        if str(where) == "memory://store/saved/model_checkpoint_1.pt":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(native, "write", interrupting)
    status, _, errors = rml("run", path, "--untracked")
    assert status == 130
    assert errors == "interrupted; --resume auto goes on from memory://store/saved/model_checkpoint_interrupted.pt\n"
    assert "saved/model_checkpoint_interrupted.pt" in names(in_memory)
    status, output, errors = rml("run", path, "--untracked", "--resume", "auto")
    assert (status, errors) == (0, "")
    assert output.startswith("resuming memory://store/saved/model_checkpoint_interrupted.pt (after epoch 1)\n")
    assert "saved/model_checkpoint_interrupted.pt" not in names(in_memory)


def test_the_newest_and_the_best_stay(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, in_memory: Any
) -> None:
    section["checkpoints"] |= {"keep": 1, "best": True}
    section["num_epochs"] = 3
    assert rml("run", run_file({"neural_network": section}), "--untracked")[0] == 0
    assert [name for name in names(in_memory) if name.endswith(".pt")] == [
        *("saved/model_checkpoint_3.pt", "saved/model_checkpoint_best.pt"),
    ]


def test_an_evaluation_knows_what_a_checkpoint_behind_a_url_knows(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, in_memory: Any
) -> None:
    assert rml("run", run_file({"neural_network": section}), "--untracked")[0] == 0
    section["checkpoints"] = {"load": "memory://store/saved/model_checkpoint_2.pt"}
    section["data"].pop("input_path")
    status, output, errors = rml("run", run_file({"neural_network": section}), "--untracked")
    assert (status, errors) == (0, "")
    assert "classes left -> 0, right -> 1\n" in output


def test_a_damaged_checkpoint_is_passed_over(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, in_memory: Any
) -> None:
    path = run_file({"neural_network": section})
    assert rml("run", path, "--untracked")[0] == 0
    whole = in_memory.cat_file("/store/saved/model_checkpoint_2.pt")
    for content, what in ((whole[:-200], "cut short"), (b"nonsense", "not a file with weights")):
        in_memory.pipe_file("/store/saved/model_checkpoint_2.pt", content)
        status, output, errors = rml("run", path, "--untracked", "--resume", "auto", "--set", "num_epochs=1")
        assert status == 0
        assert errors == f"passed over: memory://store/saved/model_checkpoint_2.pt is {what}\n"
        assert output.startswith("resuming memory://store/saved/model_checkpoint_1.pt (after epoch 1)\n")
    flipped = bytearray(whole)
    for at in range(len(flipped) // 2, len(flipped) // 2 + 500):
        flipped[at] ^= 1
    in_memory.pipe_file("/store/saved/model_checkpoint_2.pt", bytes(flipped))
    found, said = native.newest(resolve("memory://store/saved", "/"))
    assert (str(found), said) == (
        "memory://store/saved/model_checkpoint_1.pt",
        ["passed over: memory://store/saved/model_checkpoint_2.pt is damaged"],
    )


def test_two_runs_do_not_write_to_one_place(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, in_memory: Any
) -> None:
    from rml_core.engine.claim import claimed

    with claimed([("here", resolve("memory://store/saved/", "/"))]):
        status, _, errors = rml("run", run_file({"neural_network": section}), "--untracked")
    assert status == 2
    assert errors.endswith(
        "neural_network.checkpoints.save: another run is writing to memory://store/saved\n"
        "    wait until it has ended, or give this run a place of its own\n"
    )


def test_a_web_server_takes_nothing(
    section: dict[str, Any], run_file: Callable[..., Path], rml: Rml, tmp_path: Path, web: Any
) -> None:
    url = f"http://127.0.0.1:{web.server_port}"
    section["checkpoints"] = {"save": f"{url}/saved"}
    section["data"]["test_output_path"] = f"{url}/predictions"
    path = run_file({"neural_network": section})
    allowed = "    allowed: a path of this machine, or a URL that takes files, as s3://bucket/name\n"
    assert rml("validate", path) == (
        *(2, ""),
        f"{path}: 2 problems\n\n"
        f'neural_network.data.test_output_path: "{url}/predictions": nothing can be written to a web server\n{allowed}'
        f'neural_network.checkpoints.save: "{url}/saved": nothing can be written to a web server\n{allowed}',
    )
    section["checkpoints"] = {"save": "saved"}
    section["data"].pop("test_output_path")
    run_file({"neural_network": section})
    assert rml("validate", f"{url}/run.json") == (
        *(2, ""),
        f"{url}/run.json: 2 problems\n\n"
        f'neural_network.outfile: "{url}/out.txt" is behind a URL, which takes no lines one after the other\n'
        "    allowed: a path of this machine, as logs/out.txt\n"
        f'neural_network.checkpoints.save: "{url}/saved": nothing can be written to a web server\n{allowed}',
    )


def test_a_place_that_takes_nothing(
    section: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Rml,
    in_memory: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(in_memory), "put_file", refuse)
    status, _, errors = rml("run", run_file({"neural_network": section}), "--untracked")
    assert status == 2
    remedy = "    choose another place, or make this one writable\n"
    assert errors.endswith(
        "2 problems\n\n"
        f"neural_network.checkpoints.save: memory://store/saved cannot be written: Access Denied\n{remedy}"
        f"neural_network.data.test_output_path: memory://store/predictions cannot be written: Access Denied\n{remedy}"
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            "model_checkpoint_2.pt",
            "checkpoint epoch 2: memory://store/saved/model_checkpoint_2.pt: No space left on device; the earlier "
            "checkpoints are whole\n",
        ),
        (
            ".latest_run.json",
            "memory://store/saved/.latest_run.json: No space left on device; the earlier checkpoints are whole\n",
        ),
        ("output_2.h5", "evaluate epoch 2: memory://store/predictions/output_2.h5: No space left on device\n"),
    ],
)
def test_a_place_that_is_full(
    file: str,
    said: str,
    section: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Rml,
    in_memory: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = remote.put

    def full(local: Path, path: Any) -> None:
        if path.name == file:
            raise OSError(28, "No space left on device")
        put(local, path)

    monkeypatch.setattr(remote, "put", full)
    status, _, errors = rml("run", run_file({"neural_network": section}), "--untracked")
    assert (status, errors) == (1, said)
    assert not [name for name in names(in_memory) if file in name]


def test_half_a_file_is_never_seen(in_memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays, and what was begun goes."""
    in_memory.pipe_file("/store/file", b"before")
    (tmp_path / "new").write_bytes(b"after")
    put_file = type(in_memory).put_file

    def broken(self: Any, local: str, there: str, **options: Any) -> None:
        put_file(self, local, there, **options)
        assert self.cat_file("/store/file") == b"before"
        raise ConnectionError("the line is cut")

    monkeypatch.setattr(type(in_memory), "put_file", broken)
    place = resolve("memory://store/file", "/")
    with pytest.raises(OSError, match="the line is cut"):
        remote.put(tmp_path / "new", place)  # type: ignore[arg-type]
    assert (names(in_memory), in_memory.cat_file("/store/file")) == (["file"], b"before")
    monkeypatch.undo()
    remote.put(tmp_path / "new", place)  # type: ignore[arg-type]
    assert (names(in_memory), in_memory.cat_file("/store/file")) == (["file"], b"after")
