from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tasks.interrupt import deferred


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == handler


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that come through to who would have had them."""
    numbers: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: numbers.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_waits(heard: list[int], number: signal.Signals):
    stops: list[str] = []
    with deferred(lambda: stops.append("stop")) as interruption:
        assert interruption.signal is None
        signal.raise_signal(number)
        assert (stops, heard, interruption.signal) == (["stop"], [], number)
        interruption.deliver()
        assert heard == [number]
    assert heard == [number]


def test_a_second_signal_acts_at_once(heard: list[int]):
    stops: list[str] = []
    with deferred(lambda: stops.append("stop")) as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert (stops, heard, interruption.signal) == (["stop"], [signal.SIGTERM], signal.SIGINT)


def test_without_a_signal_nothing_is_delivered(heard: list[int]):
    with deferred(lambda: None) as interruption:
        interruption.deliver()
    assert heard == []


def test_a_failure_gives_the_handlers_back():
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def fail() -> None:
        with deferred(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    assert seen[0] != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_nothing_is_deferred(heard: list[int]):
    results: list[object] = []

    def work() -> None:
        with deferred(lambda: results.append("stop")) as interruption:
            results.append(interruption.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGINT)
    assert (results, heard) == ([None], [signal.SIGINT])
