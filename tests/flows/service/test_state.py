"""The folder of a service: where it is, what stands in it, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from flows.service.state import LONGEST_SOCKET, Options, State, chosen, named, written
from rml_core.config.problem import Refused


def test_the_folder_is_the_given_one_else_the_environments_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RML_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert named().folder == tmp_path / ".local" / "state" / "rml"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    assert named().folder == tmp_path / "states" / "rml"
    monkeypatch.setenv("RML_STATE", "~/mine")
    assert named().folder == tmp_path / "mine"
    assert named(tmp_path / "given").folder == tmp_path / "given"


def test_what_is_not_asked_for_stays_as_it_was(tmp_path: Path) -> None:
    first = chosen(None, 0, 2, port=4201, host=None)
    assert first == Options(host="127.0.0.1", port=4201, gpu_runs=0, cpu_runs=2)
    assert chosen(first, 4, 64, cpu_runs=5, port=None) == Options("127.0.0.1", 4201, gpu_runs=0, cpu_runs=5)
    state = State(tmp_path)
    assert state.options() is None
    state.keep(first)
    assert state.options() == first


def test_a_machine_with_gpus_takes_two_runs_a_gpu() -> None:
    assert chosen(None, 4, 64) == Options(gpu_runs=8, cpu_runs=16)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Refused) as refused:
        chosen(None, 0, 2, port=0, gpu_runs=-1, cpu_runs=-2)
    assert str(refused.value) == (
        "--port: 0 is no port\n    allowed: 1 to 65535\n"
        "--gpu-runs: -1\n    allowed: 0 or more\n"
        "--cpu-runs: -2\n    allowed: 0 or more"
    )
    with pytest.raises(Refused) as refused:
        chosen(None, 0, 2, cpu_runs=0)
    assert str(refused.value) == "--gpu-runs 0 and --cpu-runs 0: nothing would ever run\n    raise one of them"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4200"),
        ("0.0.0.0", "http://127.0.0.1:4200"),
        ("::", "http://[::1]:4200"),
        ("::1", "http://[::1]:4200"),
        ("gpu-box", "http://gpu-box:4200"),
    ],
)
def test_the_address_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert Options(host=host).url == url
    assert Options(host=host).api == f"{url}/api"


def test_a_folder_too_deep_for_a_socket_has_it_elsewhere(tmp_path: Path) -> None:
    near, far = State(Path("/s")), State(tmp_path / ("d" * 60) / ("e" * 60))
    assert near.socket == Path("/s/supervisord.sock")
    assert len(os.fsencode(far.socket)) <= LONGEST_SOCKET
    assert far.socket != State(tmp_path / ("d" * 60) / ("f" * 60)).socket
    assert far.socket == State(far.folder).socket


def test_the_folders_are_the_users_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.make()
    assert [path.stat().st_mode & 0o777 for path in (state.folder, state.prefect, state.logs)] == [0o700] * 3


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused) as refused:
        State(tmp_path / "file" / "state").make()
    assert str(refused.value) == (
        f"the state folder cannot be made: {tmp_path / 'file' / 'state'}: not a directory\n"
        "    name another one: `--state DIR`, or the variable RML_STATE"
    )


def test_a_disk_that_is_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nearly:
        f_bavail, f_frsize = 3 * 256, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Nearly)
    with pytest.raises(Refused) as refused:
        State(tmp_path).make()
    assert str(refused.value) == (
        f"{tmp_path}: 3 MiB are free, and the service's database and logs need 256\n"
        "    free some, or name a folder on another disk: `--state DIR`, or the variable RML_STATE"
    )


def test_settings_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text(json.dumps({"harbour": 1}))
    with pytest.raises(Refused) as refused:
        State(tmp_path).options()
    assert str(refused.value) == (
        f"{tmp_path / 'service.json'}: is not what `rml up` writes\n    remove it: `rml up` makes it anew"
    )


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings"
    written(path, "before")

    def fail(*arguments: object) -> NoReturn:
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        written(path, "after")
    assert [each.name for each in tmp_path.iterdir()] == ["settings"]
    assert path.read_text() == "before"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ['{"port": "4200"}', '{"gpu_runs": true}', "[]", "{", '{"more": 1}'])
def test_what_rml_up_has_not_written_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text(content)
    with pytest.raises(Refused) as refused:
        State(tmp_path).options()
    assert str(refused.value) == (
        f"{tmp_path}/service.json: is not what `rml up` writes\n    remove it: `rml up` makes it anew"
    )


@pytest.mark.parametrize("name", ["my #1", "a ;b", "a\nb"])
def test_a_folder_that_supervisord_reads_as_a_comment_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        State(tmp_path / name).make()
    assert str(refused.value) == (
        f"{tmp_path / name}: supervisord reads what stands behind a blank and a ; or # as a comment\n"
        "    name another folder: `--state DIR`, or the variable RML_STATE"
    )
    assert not (tmp_path / name).exists()
