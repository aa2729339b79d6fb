"""Runs whose files are behind URLs: in memory and on a web server, against the same run on files of this machine."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

Rml = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["memory", "web"])
def url(
    request: pytest.FixtureRequest, section: dict[str, Any], pictures: Path, tmp_path: Path, in_memory: Any, web: Any
) -> str:
    """A folder behind a URL with a run file, its network, its pictures (in folders whose names a URL spells in another
    way) and weights to begin with. The same folder is `tmp_path / "there"`."""
    from flows.phases import as_it_is, execute
    from rml_core.check import check
    from rml_core.run import read

    there = tmp_path / "there"
    for part in ("train", "test"):
        for label, name in (("left", "on the left"), ("right", "right")):
            (there / "my pictures" / part / name).mkdir(parents=True)
            for file in sorted((pictures / part / label).iterdir())[:3]:
                shutil.copy(file, there / "my pictures" / part / name)
    section["data"] |= {"input_path": "my pictures/train", "test_input_path": "my pictures/test", "batch_size": 4}
    section["num_epochs"] = 1
    for key in ("outfile", "checkpoints"):
        section.pop(key)
    section["data"].pop("test_output_path")
    (there / "network.json").write_text(json.dumps(section["layers"]))
    section["layers"] = "network.json"
    before = copy.deepcopy(section) | {"checkpoints": {"save": str(there / "saved")}, "seed": 1}
    execute(check(read({"neural_network": before}, there)), as_it_is)
    section["checkpoints"] = {"load": "saved/model_checkpoint_1.pt"}
    (there / "run.json").write_text(json.dumps({"neural_network": section}))
    in_memory.put(f"{there}/", "/store/there/", recursive=True)
    return "memory://store/there" if request.param == "memory" else f"http://127.0.0.1:{web.server_port}/there"


@pytest.mark.parametrize("preload", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_gives_what_it_gives_on_this_machine(
    url: str, preload: bool, rml: Rml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_THREADS", "4")
    own: list[str] = []
    for base in (url, str(tmp_path / "there")):
        out = tmp_path / f"out{len(own)}.txt"
        status, output, errors = rml(
            *("run", f"{base}/run.json", "--untracked", "--set", f"data.preload={json.dumps(preload)}"),
            *("--set", f"outfile={out}", "--set", f"data.test_output_path={tmp_path}/{len(own)}"),
        )
        assert (status, errors) == (0, "")
        own.append(output.partition("done")[0].partition("epoch 1/1")[0])
        np.savetxt(out.with_suffix(".loss"), np.loadtxt(out.with_name(f"{out.stem}_train.txt"))[:, 3:])
    assert own[0] == own[1]
    assert (
        "classes on the left -> 0, right -> 1\nLoaded 2 of the network's 2 layers with weights, skipped 0\n" in own[0]
    )
    assert (tmp_path / "out0.loss").read_text() == (tmp_path / "out1.loss").read_text()
    with h5py.File(tmp_path / "0" / "output_1.h5") as one, h5py.File(tmp_path / "1" / "output_1.h5") as other:
        assert list(one) == list(other) == ["on the left", "right"]
        for label in other:
            assert list(one[label]) == list(other[label])
            for name in other[label]:
                assert one[label][name][()].tolist() == other[label][name][()].tolist()


def test_what_was_prepared_is_used_again(url: str, rml: Rml, web: Any, tmp_path: Path) -> None:
    asked = []
    for _ in range(2):
        web.asked.clear()
        assert rml("run", f"{url}/run.json", "--untracked")[0] == 0
        asked.append(sum(line.startswith("GET") and line.endswith(".png") for line in web.asked))
    # The headers of 12 pictures tell the sizes each time, those of the first of each role are looked at twice; and so
    # are their pixels, which the others' are held against.
    assert asked == ([14 + 14, 14] if url.startswith("http") else [0, 0])


def test_the_other_commands(url: str, rml: Rml, tmp_path: Path) -> None:
    local = tmp_path / "there"
    assert rml("validate", f"{url}/run.json", f"{url}/run.json") == (0, f"{url}/run.json: ok\n" * 2, "")
    assert rml("plan", f"{url}/run.json") == rml("plan", local / "run.json")
    assert rml("network", f"{url}/run.json") == rml("network", local / "run.json")
    status, output, errors = rml("network", local / "network.json")
    assert rml("network", f"{url}/network.json") == (status, output, errors.replace(str(local), url))


def test_every_problem_names_its_url(url: str, rml: Rml, tmp_path: Path, in_memory: Any) -> None:
    content = (tmp_path / "there" / "saved" / "model_checkpoint_1.pt").read_bytes()[:1000]
    (tmp_path / "there" / "cut.pt").write_bytes(content)
    in_memory.pipe_file("/store/there/cut.pt", content)
    status, output, errors = rml(
        *("run", f"{url}/run.json", "--untracked", "--set", "data.input_path=nothing"),
        *("--set", "data.test_input_path=saved", "--set", "checkpoints.load=cut.pt"),
    )
    assert (status, output) == (2, "")
    assert errors == (
        f"{url}/run.json: 3 problems\n\n"
        f"neural_network.checkpoints.load: {url}/cut.pt is cut short\n"
        "    it was not written or copied to its end; take an earlier one, or copy it again\n"
        f"neural_network.data.input_path: {url}/nothing does not exist\n"
        "    allowed: a file or a folder\n"
        f"neural_network.data.test_input_path: {url}/saved has no images, only other files: 1 .pt\n"
        "    name the folder that has the images, or put them there\n"
    )
    assert rml("validate", f"{url}/nothing.json") == (
        *(2, ""),
        f"{url}/nothing.json: 1 problem\n\n{url}/nothing.json: no such file or directory\n",
    )


def test_a_network_that_is_not_there(url: str, rml: Rml) -> None:
    status, output, errors = rml("run", f"{url}/run.json", "--untracked", "--set", "layers=nothing.json")
    assert (status, output) == (2, "")
    assert errors == (
        f'{url}/run.json: 1 problem\n\nneural_network.layers: "nothing.json" does not exist\n'
        f"    looked for {url}/nothing.json\n"
    )


def test_a_host_that_does_not_answer(
    rml: Rml, run_file: Callable[..., Path], web: Any, section: dict[str, Any]
) -> None:
    web.server_close()
    host = f"127.0.0.1:{web.server_port}"
    why = f"Cannot connect to host {host} ssl:default [Connect call failed ('127.0.0.1', {web.server_port})]"
    section["data"]["input_path"] = f"http://{host}/train"
    section["checkpoints"] = {"load": f"http://{host}/a.pt"}
    path = run_file({"neural_network": section})
    assert rml("validate", path) == (
        *(2, ""),
        f"{path}: 2 problems\n\n"
        f"neural_network.checkpoints.load: http://{host}/a.pt cannot be read: {why}\n"
        f"neural_network.data.input_path: http://{host}/train cannot be read: {why}\n",
    )
    section["layers"] = f"http://{host}/network.json"
    path = run_file({"neural_network": section})
    assert rml("validate", path) == (
        *(2, ""),
        f'{path}: 2 problems\n\nneural_network.layers: "http://{host}/network.json" cannot be read: {why}\n'
        f"neural_network.data.input_path: http://{host}/train cannot be read: {why}\n",
    )


def test_a_web_server_that_lists_no_folders(
    rml: Rml, run_file: Callable[..., Path], web: Any, section: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "index.html").write_text("Welcome")
    section["data"]["input_path"] = f"http://127.0.0.1:{web.server_port}/train"
    path = run_file({"neural_network": section})
    assert rml("validate", path) == (
        *(2, ""),
        f"{path}: 1 problem\n\n"
        f"neural_network.data.input_path: {section['data']['input_path']} has no images: this web page has no links to "
        "files below it\n"
        "    name a folder that the server lists, a single file, or a copy on this machine\n",
    )


def test_a_file_that_vanishes_during_the_run(url: str, rml: Rml, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rml_core.config import remote

    read = remote.read_bytes

    def without_one(path: Any) -> bytes:
        return read(f"{path}.gone" if str(path).endswith("right/img1.png") else path)

    monkeypatch.setattr(remote, "read_bytes", without_one)
    status, _, errors = rml("run", f"{url}/run.json", "--untracked", "--set", "data.preload=false")
    assert status == 1
    assert (
        errors == f"train epoch 1: {url}/my pictures/train/right/img1.png: cannot be read: No such file or directory\n"
    )


def test_weights_that_cannot_be_read_any_more(url: str, rml: Rml, monkeypatch: pytest.MonkeyPatch) -> None:
    from rml_core.config import remote

    def gone(path: Any) -> Any:
        raise OSError(0, "the host is gone")

    monkeypatch.setattr(remote, "fetched", gone)
    status, _, errors = rml("run", f"{url}/run.json", "--untracked")
    assert status == 1
    assert errors == f"build network: {url}/saved/model_checkpoint_1.pt: cannot be read: the host is gone\n"


def test_a_checkpoint_knows_the_network_behind_a_url(url: str, rml: Rml, tmp_path: Path) -> None:
    saved = tmp_path / "own"
    assert rml("run", f"{url}/run.json", "--untracked", "--set", f"checkpoints.save={saved}")[0] == 0
    kept = torch.load(saved / "model_checkpoint_1.pt", weights_only=True)
    layers = json.loads((tmp_path / "there" / "network.json").read_text())
    assert json.loads(kept["run"])["neural_network"]["layers"] == layers
    options = ("--untracked", "--set", f"checkpoints.save={saved}", "--set", "num_epochs=2", "--resume", "auto")
    status, output, errors = rml("run", f"{url}/run.json", *options)
    assert (status, errors) == (0, "")
    assert output.startswith(f"resuming {saved}/model_checkpoint_1.pt (after epoch 1)\n")
