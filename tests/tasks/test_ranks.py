from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rml_core.config.problem import Refused
from tasks import ranks

Rml = Callable[..., tuple[int, str, str]]


def test_as_many_loader_threads_as_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RML_THREADS", raising=False)
    assert ranks.threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("RML_THREADS", "7")
    assert ranks.threads() == 7


@pytest.mark.parametrize("given", ["0", "-1", "two", "", "1.5", "٣½"])
def test_a_number_of_threads_that_is_none(monkeypatch: pytest.MonkeyPatch, given: str):
    monkeypatch.setenv("RML_THREADS", given)
    with pytest.raises(Refused) as refused:
        ranks.threads()
    text = f'RML_THREADS: "{given}" does not fit\n    allowed: a number of threads, 1 or more'
    assert str(refused.value) == text


def test_threads_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Rml,
    tmp_path: Path,
):
    monkeypatch.setenv("RML_THREADS", "many")
    file = run_file(classification)
    text = f'{file}: 1 problem\n\nRML_THREADS: "many" does not fit\n    allowed: a number of threads, 1 or more\n'
    assert rml("run", file, "--untracked") == (2, "", text)
    assert list(tmp_path.iterdir()) == [file]


def test_several_ranks_are_refused_by_name(classification: dict[str, Any], run_file: Callable[..., Path], rml: Rml):
    file = run_file(classification)
    text = f"{file}: 1 problem\n\n--ranks: 2 ranks are not available yet\n    allowed: 1\n"
    assert rml("run", file, "--untracked", "--ranks", "2") == (2, "", text)
    ranks.refuse_several(None)
    ranks.refuse_several(1)


def test_stopping_ranks_that_are_gone():
    gone = ranks.Ranks("gone", 1)
    ranks.stop(gone)
    ranks.close(gone)
