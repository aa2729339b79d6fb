"""The device that a run works on: pretended ones, whose work the CPU does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rml_core.config.problem import Refused
from rml_core.engine.turns import Turn
from tasks import devices
from tasks.devices import Device, Freed, Guard, Taken, Waiting, guarded, taken, wanted
from tasks.progress import listening


@pytest.fixture(autouse=True)
def two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_LOCKS", str(tmp_path))
    monkeypatch.setenv("RML_DEVICES", "pretended:2")
    monkeypatch.setattr(devices, "LOOK_S", 0.01)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(devices.log, "propagate", True)
    caplog.set_level(logging.INFO, "rml")
    return lambda: caplog.messages


def do(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    called.append(name)
    return function(*arguments)


called: list[str] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    called.clear()


def refuses(name: str) -> str:
    with pytest.raises(Refused) as refused:
        wanted(name)
    return str(refused.value)


def test_auto_and_cuda_take_any_and_a_number_that_one() -> None:
    both = (Device("cuda:0", "pretended-0", "cpu"), Device("cuda:1", "pretended-1", "cpu"))
    assert wanted("auto") == wanted("cuda") == both
    assert wanted("cuda:1") == both[1:]
    assert wanted("cpu") == ()


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'neural_network.device: "{}" is not there: this machine has {} GPUs\n    allowed: auto, cpu{}'
    assert refuses("cuda:2") == said.format("cuda:2", 2, ", cuda:0 to cuda:1")
    monkeypatch.setenv("RML_DEVICES", "pretended:1")
    assert refuses("cuda:1") == said.format("cuda:1", 1, ", cuda:0")
    monkeypatch.delenv("RML_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert refuses("cuda") == said.format("cuda", 0, "")
    assert wanted("auto") == ()


@pytest.mark.parametrize("given", ["pretended", "pretended:0", "2", "cuda:1"])
def test_what_cannot_be_pretended_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_DEVICES", given)
    assert refuses("auto") == f'RML_DEVICES: "{given}" does not fit\n    allowed: pretended:N, as pretended:2'


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_of_runs_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_GPU_RUNS", given)
    with pytest.raises(Refused) as refused, taken("auto", "a.json", do):
        pass
    assert str(refused.value) == f'RML_GPU_RUNS: "{given}" does not fit\n    allowed: a number of runs, 1 or more'


def test_the_cpu_is_never_waited_for() -> None:
    with taken("cpu", "a.json", do) as first, taken("cpu", "b.json", do) as second:
        assert (first, second) == (None, None)
    assert called == []


def test_a_free_device_is_taken_without_a_phase() -> None:
    events: list[object] = []
    with listening(events.append), taken("auto", "a.json", do) as first, taken("auto", "b.json", do) as second:
        assert isinstance(first, Taken)
        assert isinstance(second, Taken)
        assert (first.device.name, second.device.name) == ("cuda:0", "cuda:1")
    assert called == []
    assert events == [first, second, Freed(second.device), Freed(first.device)]


def test_a_failure_gives_the_device_back() -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), taken("cuda:0", "a.json", do):
            raise ZeroDivisionError
    assert called == []


def test_who_must_wait_says_for_what_and_why(said: Callable[[], list[str]]) -> None:
    events: list[Any] = []
    ended: list[float] = []
    began = threading.Event()

    def second() -> None:
        with listening(events.append), taken("cuda:1", "b.json", do) as mine:
            assert mine is not None
            assert time.monotonic() >= ended[0]

    def hear(event: object) -> None:
        if isinstance(event, Waiting):
            began.set()

    with guarded(Guard("flow run brave-fox")), listening(hear):
        with taken("cuda:1", "a.json", do):
            thread = threading.Thread(target=second)
            thread.start()
            assert began.wait(5)
            ended.append(time.monotonic())
        thread.join()
    assert called == ["wait for cuda:1"]
    waiting = events[0]
    (holder,) = waiting.holders
    assert [device.name for device in waiting.devices] == ["cuda:1"]
    assert holder.what == "flow run brave-fox of a.json"
    since = time.strftime("%H:%M:%S", time.localtime(holder.since))
    told = f"waiting: cuda:1 is held by flow run brave-fox of a.json (process {holder.process}, since {since})"
    assert said()[0] == told
    assert said()[-1].startswith("cuda:1 is free, after ")


def test_a_phase_that_waits_for_several_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def tell(name: str, *arguments: object) -> Any:
        raise Told(name)

    for count, name in ((1, "cuda:0"), (2, "cuda:0 or cuda:1"), (5, "one of 5 GPUs")):
        monkeypatch.setenv("RML_DEVICES", f"pretended:{count}")
        with pytest.raises(Told) as told, guarded(Guard(runs=lambda device: 0)), taken("auto", "a.json", tell):
            pass
        assert str(told.value) == f"wait for {name}"


def test_a_signal_ends_the_wait_and_leaves_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        assert len(list(tmp_path.glob("waits.*"))) == 1
        raise KeyboardInterrupt

    with taken("cuda:0", "a.json", do):
        monkeypatch.setattr(time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt), taken("cuda:0", "b.json", do):
            pass
    assert list(tmp_path.glob("waits.*")) == []


def test_runs_share_a_device_as_far_as_they_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_GPU_RUNS", "2")
    with taken("cuda:0", "a.json", do), taken("cuda:0", "b.json", do):
        third = Turn(["pretended-0"], lambda key: 2, "c.json")
        assert third.take() is None
        third.give_up()
        with guarded(Guard(runs=lambda device: 3)), taken("cuda:0", "d.json", do):
            pass
    assert called == []


def test_who_waits_behind_others_that_wait_is_told(said: Callable[[], list[str]]) -> None:
    first = Turn(["pretended-0"], lambda key: 0, "first.json")
    assert first.take() is None
    threading.Timer(0.05, first.give_up).start()
    with taken("cuda:0", "b.json", do):
        pass
    assert said()[0] == "waiting for cuda:0: others wait for it too, and came before"
