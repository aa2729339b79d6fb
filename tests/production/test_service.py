"""A service that is put up, disturbed and taken down."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_all_is_well_once_it_is_up(service: Any) -> None:
    found = service.status()
    assert found["well"]
    assert found["url"] == service.url
    assert found["state"] == str(service.state)
    assert {name: program["state"] for name, program in found["programs"].items()} == {
        "server": "running",
        "gpu": "running",
        "cpu": "running",
    }
