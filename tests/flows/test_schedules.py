"""What `rml schedule` is asked: when, under which name; every contradiction at once. Servers are tests/production's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule

from flows import schedules
from flows.schedules import Scheduling, _scheduled, duration, schedule_of
from rml_core.config.problem import Refused

Rml = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_how_often(text: str, expected: timedelta):
    assert duration(text) == expected


@given(st.integers(0, 10**30), st.sampled_from(sorted(schedules.UNITS)))
@settings(max_examples=100, deadline=None)
def test_how_often_is_from_ten_seconds_to_ten_years(number: int, unit: str):
    wanted = number * schedules.UNITS[unit]
    if 10 <= wanted <= 520 * 7 * 24 * 3600:
        assert duration(f"{number}{unit}") == timedelta(seconds=wanted)
    else:
        with pytest.raises(Refused):
            duration(f"{number}{unit}")


@pytest.mark.parametrize("cron", ["0 3 * * 1", "*/5 * * * *", "0 0 29 2 *", "0 0 l * *", "@daily"])
def test_when_by_the_clock(cron: str):
    made = schedule_of(Scheduling("run.json", cron, None, "Europe/Vienna", None, "wait", {}))
    assert isinstance(made, CronSchedule)
    assert (made.cron, made.timezone) == (cron, "Europe/Vienna")


@pytest.mark.parametrize(
    ("cron", "every", "timezone", "message"),
    [
        (
            None,
            None,
            None,
            '--cron: is missing: nothing says when\n    allowed: --cron "0 3 * * 1" (Mondays at 3), or --every 1h',
        ),
        (
            "0 3 * *",
            "often",
            "Europe/Atlantis",
            "--cron: stands beside --every, and both say when\n"
            '    allowed: --cron "0 3 * * 1" (Mondays at 3), or --every 1h\n'
            '--timezone: "Europe/Atlantis" does not fit\n'
            "    allowed: a name as Europe/Vienna\n"
            '--cron: "0 3 * *" does not fit\n'
            '    allowed: five fields, as "0 3 * * 1"\n'
            '--every: "often" does not fit\n'
            "    allowed: a number and s, m, h, d or w, as 1h or 1h30m",
        ),
        (
            None,
            "5s",
            "Europe/Vienna",
            "--timezone: is for --cron: an interval is as long everywhere\n"
            "    leave it out\n"
            '--every: "5s" is too often\n'
            "    allowed: 10s to 520w",
        ),
        (
            None,
            "9999999999w",
            None,
            '--every: "9999999999w" is too seldom\n    allowed: 10s to 520w',
        ),
        *(
            (cron, None, None, f'--cron: "{cron}" does not fit\n    allowed: five fields, as "0 3 * * 1"')
            for cron in ("0 0 3 * * 1", "0 0 1 1 * * 2030", "", "@reboot")
        ),
        *(
            (cron, None, None, f'--cron: "{cron}" never fires: there is no such date\n    give it a date that comes')
            for cron in ("0 0 30 2 *", "0 0 31 4,6 *")
        ),
    ],
)
def test_when_is_refused(cron: str | None, every: str | None, timezone: str | None, message: str):
    with pytest.raises(Refused) as refused:
        schedule_of(Scheduling("run.json", cron, every, timezone, None, "wait", {}))
    assert str(refused.value) == message


def test_the_command_says_every_problem_at_once(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Rml,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    section = classification["neural_network"]
    section["outfile"] = "~/out.txt"
    section["data"]["validation_split"] = 0.5
    path = run_file(classification)
    status, _, errors = rml(
        "schedule", path, "--name", "a b", "--overlap", "pause", "--metric", "best", "--margin", "-1"
    )
    assert status == 2
    assert errors.startswith(f"{path}: 7 problems\n\n--cron: is missing: nothing says when\n")
    for line in (
        '--name: "a b" does not fit\n',
        '--overlap: "pause" does not fit\n    allowed: wait, skip\n',
        '--metric: "best" is no metric\n',
        "--margin: -1.0 does not fit\n",
        'neural_network.outfile: "~/out.txt": ~ would be the home of whoever runs the worker\n',
        "neural_network.data.validation_split: stands beside test_input_path",
    ):
        assert line in errors
    status, _, errors = rml("schedule", "--every", "1h", "--metric", "loss")
    assert (status, errors) == (
        2,
        "rml schedule: 1 problem\n\nFILE: is missing: --every, --metric need a run file\n",
    )
    status, _, errors = rml("schedule", path, "--remove", "a", "--keep", "2")
    assert (status, errors) == (
        2,
        f"{path}: 1 problem\n\n--remove: stands beside {path}, --keep\n    allowed: --remove NAME alone\n",
    )


def test_what_needs_no_data_is_told_where_the_server_is_elsewhere(
    classification: dict[str, Any], run_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schedules, "api_url", lambda: "http://elsewhere:4200/api")
    data = classification["neural_network"]["data"]
    data["input_path"] = "nowhere"

    def champion(**options: Any) -> Path:
        given = Scheduling(str(run_file(classification)), None, "1h", None, None, "wait", options)
        return schedules._champion(given)

    assert champion(champion="best") == tmp_path / "best"
    del data["test_input_path"], data["test_output_path"]
    with pytest.raises(Refused) as refused:
        champion(margin=-1)
    assert str(refused.value) == (
        "--margin: -1 does not fit\n"
        "    allowed: greater than or equal to 0\n"
        "neural_network.data.test_input_path: is missing: champion and challenger are compared on test samples"
    )


def test_a_deployment_that_only_has_the_word_in_its_name_is_no_schedule():
    names = ["retrain-a", "my-retrain-x", "retrain-b"]
    client: Any = SimpleNamespace(read_deployments=lambda **options: [SimpleNamespace(name=name) for name in names])
    assert [each.name for each in _scheduled(client)] == ["retrain-a", "retrain-b"]


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_all_schedules_are_found_however_many_the_server_lists_at_once(count: int):
    names = [f"retrain-{number}" for number in range(count)]

    def listed(**options: Any) -> list[Any]:
        page = names[options["offset"] : options["offset"] + min(options["limit"], 200)]
        return [SimpleNamespace(name=name) for name in page]

    client: Any = SimpleNamespace(read_deployments=listed)
    assert [each.name for each in _scheduled(client)] == names


@pytest.mark.parametrize(
    ("there", "named", "removed"),
    [
        (["retrain-retrain-digits"], "retrain-digits", "retrain-retrain-digits"),
        (["retrain-digits", "retrain-retrain-digits"], "retrain-digits", "retrain-retrain-digits"),
        (["retrain-digits", "retrain-retrain-digits"], "digits", "retrain-digits"),
        (["retrain-digits"], "retrain-digits", "retrain-digits"),
    ],
)
def test_a_schedule_is_removed_by_its_name_and_else_by_its_deployments(
    there: list[str], named: str, removed: str, monkeypatch: pytest.MonkeyPatch
):
    gone: list[str] = []
    deployments = [SimpleNamespace(id=name, name=name, schedules=[], parameters={"champion": "/c"}) for name in there]
    client = SimpleNamespace(read_deployments=lambda **_: deployments, delete_deployment=gone.append)
    monkeypatch.setattr(schedules, "_runs", lambda *_: [])
    monkeypatch.setattr(schedules, "server", lambda: nullcontext(client))
    assert schedules.remove(named) == [f"rml/{removed} is removed; its champion stays in /c"]
    assert gone == [removed]


@pytest.mark.parametrize("begun", [False, True])
def test_a_schedule_is_removed_when_none_of_its_runs_is_in_progress(begun: bool, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    deployment = SimpleNamespace(
        id="d", name="retrain-a", schedules=[SimpleNamespace(id="s")], parameters={"champion": "/champion"}
    )
    on = SimpleNamespace(id="on", name="red-fox", state=SimpleNamespace(name="Running"))
    waiting = [SimpleNamespace(id="waits")]

    def runs(client: Any, its: Any, states: list[StateType], *_: Any) -> list[Any]:
        if StateType.SCHEDULED in states:
            return [waiting.pop()] if waiting else []
        return [on] if begun else []

    class Client:
        def read_deployments(self, **options: Any) -> list[Any]:
            return [deployment]

        def update_deployment_schedule(self, its: str, which: str, active: bool) -> None:
            told.append(f"{which} {active}")

        def delete_flow_run(self, run: str) -> None:
            told.append(run)

        def delete_deployment(self, its: str) -> None:
            told.append(its)

    monkeypatch.setattr(schedules, "_runs", runs)
    monkeypatch.setattr(schedules, "server", lambda: nullcontext(Client()))
    if begun:
        with pytest.raises(Refused) as refused:
            schedules.remove("a")
        assert str(refused.value) == (
            "--remove: run red-fox of rml/retrain-a is Running; nothing fires any more\n"
            "    wait until it has ended, or `prefect flow-run cancel on`; then remove the schedule again"
        )
    else:
        assert schedules.remove("a") == ["rml/retrain-a is removed; its champion stays in /champion"]
    assert told == ["s False", "waits", *(() if begun else ("d",))]
