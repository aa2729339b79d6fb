"""A stand-in for the server: what it is asked, and whether it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows.page import board


class Server:
    """`shown`: the artifacts by their ids; `asked`: what was done, in its order; `answers`: cleared, it is away."""

    def __init__(self) -> None:
        self.shown: dict[UUID, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.failing: Callable[[], Exception] = lambda: ConnectionError("nobody is there")

    def create_artifact(self, artifact: Any) -> Any:
        self._answer(f"create {artifact.key or artifact.type}")
        made = SimpleNamespace(id=uuid4(), key=artifact.key, task_run_id=artifact.task_run_id)
        self.shown[made.id] = artifact.model_dump() | {"made": made}
        return made

    def request(self, method: str, path: str, *, json: dict[str, Any], path_params: dict[str, UUID]) -> None:
        there = self.shown[path_params["id"]]
        self._answer(f"{method} {there['key'] or there['type']}")
        there.update(json)

    def read_artifacts(self, artifact_filter: Any, limit: int) -> list[Any]:
        return [each["made"] for each in self.shown.values()]

    def by_key(self) -> dict[str, Any]:
        return {each["key"]: each["data"] for each in self.shown.values() if each["key"]}

    def _answer(self, what: str) -> None:
        if not self.answers.is_set():
            raise self.failing()
        self.asked.append(what)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    stands_in = Server()
    monkeypatch.setattr(board, "get_client", lambda **options: nullcontext(stands_in))
    monkeypatch.setattr(board, "AGAIN", 0.01)
    monkeypatch.setattr(board, "LATEST", 0.05)
    return stands_in
