"""What a run may hold in memory, as the environment says it."""

from __future__ import annotations

import psutil
import pytest

from rml_core.config import limits
from rml_core.config.limits import memory_limit
from rml_core.config.problem import Refused

GIVEN = {
    "500000000": 500_000_000,
    "2GB": 2_000_000_000,
    "512MiB": 512 << 20,
    " 512 mib ": 512 << 20,
    "1.5g": 1_500_000_000,
    "1.5Gi": 3 << 29,
    ".5TiB": 1 << 39,
    "2048K": 2_048_000,
    "1MiB": 1 << 20,
}


@pytest.mark.parametrize(("given", "size"), GIVEN.items())
def test_sizes(monkeypatch: pytest.MonkeyPatch, given: str, size: int):
    monkeypatch.setenv("RML_MEMORY", given)
    assert memory_limit() == size


@pytest.mark.parametrize(
    "given", ["much", "-1GB", "2XB", "GB", "1e9", "1.2.3GB", "0", "12", "1023KiB", "2 G B", "inf", "1_000MB"]
)
def test_what_is_no_size(monkeypatch: pytest.MonkeyPatch, given: str):
    monkeypatch.setenv("RML_MEMORY", given)
    with pytest.raises(Refused) as refused:
        memory_limit()
    assert str(refused.value) == (
        f'RML_MEMORY: "{given}" does not fit\n    allowed: bytes, as "2GB", "512MiB" or 500000000; 1MiB or more'
    )


@pytest.mark.parametrize("given", [None, "", "  "])
def test_a_quarter_of_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path, given: str | None):
    monkeypatch.delenv("RML_MEMORY", raising=False)
    if given is not None:
        monkeypatch.setenv("RML_MEMORY", given)
    unlimited, group = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    unlimited.write_text("max\n")
    monkeypatch.setattr(limits, "_GROUPS", (unlimited, group))
    assert memory_limit() == psutil.virtual_memory().total // 4
    group.write_text("1073741824\n")
    assert memory_limit() == 1 << 28
    group.write_text("9223372036854771712\n")
    assert memory_limit() == psutil.virtual_memory().total // 4
