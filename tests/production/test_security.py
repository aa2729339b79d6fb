"""A service behind a password, for run files from others: what they can touch, what is seen of secrets, who listens."""

from __future__ import annotations

import json
import os
import stat
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.slow

PASSWORD = "admin:word-of-the-server"
STORES = "word-of-the-store"
LINK = "word-in-a-link"


@pytest.fixture(scope="module")
def locked(put_up: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service with a password; its workers may touch the folder `open` in its home."""
    home = tmp_path_factory.mktemp("locked")
    data = home / "open"
    data.mkdir()
    random = np.random.default_rng(0)
    np.savez(data / "x.npz", *random.normal(size=(8, 1, 4)).astype("f4"))
    np.savez(data / "y.npz", *random.normal(size=(8, 2)).astype("f4"))
    np.save(home / "secret.npy", np.ones((1, 4), "f4"))
    (data / "out").symlink_to(home)
    environment = {
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "RML_ROOTS": str(data),
        "RML_PART": "x",
        "RML_STORES": "stores",
    }
    with put_up(home, "--cpu-runs", "2", environment=environment) as service:
        made = service.run(
            "python",
            "-c",
            "from prefect.blocks.system import Secret\n"
            f"Secret(value={{'memory': {{'password': '{STORES}'}}}}).save('stores')",
        )
        assert made.returncode == 0, made.stderr
        yield service


def _section(**data: str) -> dict[str, Any]:
    return {
        "outfile": "logs/out.txt",
        "layers": [
            {"class_name": "Flatten", "config": {"input_shape": [4, 1]}},
            {"class_name": "Dense", "config": {"units": 2}},
        ],
        "data": {"type": "numpy", "input_path": "$RML_PART.npz", "target_path": "y.npz", "batch_size": 4, **data},
        "optimizer": {"type": "SGD"},
        "loss": {"function": "MSE"},
        "checkpoints": {"save": "checkpoints"},
    }


@contextmanager
def _client(locked: Any) -> Iterator[Any]:
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    with temporary_settings({PREFECT_API_AUTH_STRING: PASSWORD}), locked.client() as client:
        yield client


def _submitted(locked: Any, section: dict[str, Any]) -> Any:
    """A run of `section`, submitted as somebody would who uses none of our commands."""
    parameters = {"neural_network": section, "base": str(locked.home / "open")}
    with _client(locked) as client:
        return client.create_flow_run_from_deployment(
            client.read_deployment_by_name("rml/train").id, parameters=parameters
        ).id


def _ended(locked: Any, run: Any) -> tuple[str, str]:
    """Type and message of the state that the run ends in."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        with _client(locked) as client:
            state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            return state.type.value, state.message or ""
        time.sleep(0.3)
    pytest.fail("the run does not end")


def test_without_the_password_nobody_is_let_in(locked: Any) -> None:
    for path in ("/deployments/filter", "/flow_runs/filter", "/block_documents/filter"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            locked.call(path, {})
        assert refused.value.code == 401
    said = locked.run("rml", "status")
    assert said.returncode == 0, said.stdout + said.stderr
    assert PASSWORD not in said.stdout + said.stderr


def test_a_run_file_from_others_stays_within_the_roots(locked: Any) -> None:
    """All ways out at once, by the path of each; and nothing of it was done."""
    section = _section(
        input_path="../secret.npy",
        target_path="out/secret.npy",
        test_input_path="/etc/passwd",
        test_target_path="file:///etc/passwd",
        test_output_path="~/predictions",
        hdf5_outfile="memory://prediction.h5",
    )
    section |= {"outfile": "$HOME/out.txt", "layers": "$PREFECT_API_AUTH_STRING.json"}
    section["checkpoints"] = {
        "save": "out/checkpoints",
        "load": "https://example.org/{{ prefect.blocks.secret.stores }}",
    }
    kind, message = _ended(locked, _submitted(locked, section))
    assert kind == "FAILED"
    root, home = locked.home / "open", locked.home
    outside = "is outside of what may be read and written here"
    for line in (
        'neural_network.layers: "$PREFECT_API_AUTH_STRING.json": $PREFECT_API_AUTH_STRING does not expand on a worker',
        'neural_network.outfile: "$HOME/out.txt": $HOME does not expand on a worker',
        f'neural_network.data.input_path: "../secret.npy" leads to {home}/secret.npy, which {outside}',
        f'neural_network.data.target_path: "out/secret.npy" leads to {home}/secret.npy, which {outside}',
        f'neural_network.data.test_input_path: "/etc/passwd" {outside}',
        f'neural_network.data.test_target_path: "file:///etc/passwd" leads to /etc/passwd, which {outside}',
        'neural_network.data.test_output_path: "~/predictions": ~ would be the home of whoever runs the worker',
        f'neural_network.data.hdf5_outfile: "memory://prediction.h5" {outside}',
        f'neural_network.checkpoints.save: "out/checkpoints" leads to {home}/checkpoints, which {outside}',
        'neural_network.checkpoints.load: "https://example.org/{{ prefect.blocks.secret.stores }}" ' + outside,
        f"    allowed: below {root} (RML_ROOTS)",
    ):
        assert line in message
    assert PASSWORD not in message
    assert not (home / "checkpoints").exists()
    assert sorted(path.name for path in root.iterdir()) == ["out", "x.npz", "y.npz"]


def test_what_is_secret_is_seen_nowhere(locked: Any) -> None:
    """A run that has a block's secret in its process, and one that is given a secret: neither is in the database, in a
    log, in an artifact or in a checkpoint."""
    run = _submitted(locked, _section())
    kind, message = _ended(locked, run)
    assert kind == "COMPLETED", message
    refused = locked.home / "open" / "refused.json"
    refused.write_text(json.dumps({"neural_network": _section(input_path=f"https://host/a?token={LINK}")}))
    said = locked.run("rml", "submit", refused)
    assert said.returncode == 2, said.stdout + said.stderr
    assert 'neural_network.data.input_path: "https://host/a?token=***": the parameters of a run are seen' in said.stderr
    refused.unlink()
    found = [*_files_with(locked.home, STORES), *_files_with(locked.home, LINK), *_files_with(locked.home, PASSWORD)]
    assert found == []
    assert (locked.home / "open" / "checkpoints" / "model_checkpoint_1.pt").exists()


def _files_with(folder: Path, text: str) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
    ]


def test_everything_listens_on_loopback_and_the_folder_is_closed(locked: Any) -> None:
    heard = [
        connection.laddr.ip
        for process in locked.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert heard
    assert set(heard) <= {"127.0.0.1", "::1"}
    assert stat.S_IMODE(locked.state.stat().st_mode) == 0o700
    sockets = [path for path in locked.state.rglob("*") if stat.S_ISSOCK(path.stat().st_mode)]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in sockets)
    private = [locked.state / "prefect" / "prefect.db"]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in private)
    assert os.access(private[0], os.R_OK)
