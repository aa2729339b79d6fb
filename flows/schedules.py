"""`rml schedule`: retrainings that happen by themselves, each a deployment `rml/retrain-NAME` with a schedule.

A schedule keeps the run file's path and not its content: what is edited there counts from the next firing on, as with
any program that is started by the clock. Whoever wants it fixed schedules a copy.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule as ServerCron
from pydantic import ValidationError

from flows import retrain
from flows.retraining import Retraining, planned_without_data
from flows.submission import is_here
from flows.watching import api_url, server
from rml_core.check import Collected
from rml_core.config.paths import folder_of, is_url, resolve
from rml_core.config.problem import Problem, Refused, collect, listed, nearest, shown
from rml_core.config.section import parse
from rml_core.config.trust import Origin
from rml_core.run import read_json

FLOW, RETRAIN, PREFIX = "rml", "rml/retrain", "retrain-"
OVERLAP = {"wait": ConcurrencyLimitStrategy.ENQUEUE, "skip": ConcurrencyLimitStrategy.CANCEL_NEW}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = re.compile(r"(?:[0-9]+[smhdw])+")
# Ten years are the most.
LEAST_S, MOST_S = 10, 520 * UNITS["w"]
# More than these the server does not list at once.
MOST = 200
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Scheduling:
    """What `rml schedule FILE` was given. `options`: those of `Retraining`, as they were given."""

    file: str
    cron: str | None
    every: str | None
    timezone: str | None
    name: str | None
    overlap: str
    options: dict[str, Any]


def asked(file: str | None, removed: str | None, **given: Any) -> list[str]:
    """What the command was asked to do, done; lines that say what came of it. Raises `Refused`."""
    said = [f"--{key}" for key in ("cron", "every", "timezone", "name") if given[key] is not None]
    said += [f"--{key.replace('_', '-')}" for key in given["options"]]
    problems = []
    if removed is not None and (file is not None or said):
        what = f"stands beside {listed([*([file] if file is not None else []), *said])}"
        problems.append(Problem("--remove", what, "--remove NAME alone"))
    elif removed is None and file is None and said:
        problems.append(Problem("FILE", f"is missing: {listed(said)} need a run file"))
    if problems:
        raise Refused(problems)
    if removed is not None:
        return remove(removed)
    return schedules() if file is None else schedule(Scheduling(file, **given))


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `1h30m`, `2d`, `1w`. Raises `Refused`."""
    if DURATION.fullmatch(text) is None:
        raise Refused(
            [Problem("--every", f"{shown(text)} does not fit", "a number and s, m, h, d or w, as 1h or 1h30m")]
        )
    # As floating point, which has a number for digits without end.
    seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", text))
    if not LEAST_S <= seconds <= MOST_S:
        how = "often" if seconds < LEAST_S else "seldom"
        raise Refused([Problem("--every", f"{shown(text)} is too {how}", f"{LEAST_S}s to {_text(MOST_S)}")])
    return timedelta(seconds=seconds)


def schedule_of(given: Scheduling) -> CronSchedule | IntervalSchedule:
    """Raises `Refused` with every problem."""
    problems = []
    if (given.cron is None) == (given.every is None):
        what = "is missing: nothing says when" if given.cron is None else "stands beside --every, and both say when"
        problems.append(Problem("--cron", what, '--cron "0 3 * * 1" (Mondays at 3), or --every 1h'))
    if given.timezone is not None and given.cron is None:
        problems.append(
            Problem("--timezone", "is for --cron: an interval is as long everywhere", remedy="leave it out")
        )
    made: CronSchedule | IntervalSchedule | None = None
    if given.cron is not None:
        try:
            CronSchedule(cron="0 0 * * *", timezone=given.timezone)
        except ValidationError:
            what = f"{shown(given.timezone)} does not fit"
            problems.append(Problem("--timezone", what, "a name as Europe/Vienna"))
        problem = _problem_of_cron(given.cron)
        problems += [problem] if problem is not None else []
        if not problems:
            made = CronSchedule(cron=given.cron, timezone=given.timezone)
    if given.every is not None:
        try:
            made = IntervalSchedule(interval=duration(given.every), anchor_date=datetime.now(UTC))
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    assert made is not None
    return made


def _problem_of_cron(cron: str) -> Problem | None:
    """Prefect takes fields for seconds and years, too, which its pages say nothing of, and dates that there are not."""
    allowed = 'five fields, as "0 3 * * 1"'
    if len(cron.split()) != 5 and not cron.startswith("@"):
        return Problem("--cron", f"{shown(cron)} does not fit", allowed)
    try:
        wanted = ServerCron(cron=cron)
    except ValidationError:
        return Problem("--cron", f"{shown(cron)} does not fit", allowed)
    try:
        asyncio.run(wanted.get_dates(n=1))
    except ValueError:
        return Problem(
            "--cron", f"{shown(cron)} never fires: there is no such date", remedy="give it a date that comes"
        )
    return None


def schedule(given: Scheduling) -> list[str]:
    """Make the deployment, or change the one of that name; lines that say what was made.

    Raises:
        Refused: with every problem of the options, of the run file as a worker would read it, and of the server.
    """
    made: list[Any] = []
    champions: list[str] = []
    name = given.name if given.name is not None else Path(given.file.rstrip("/")).stem
    collect(
        lambda: made.append(schedule_of(given)),
        lambda: _check_names(name, given),
        lambda: champions.append(str(_champion(given))),
    )
    (champion,) = champions
    file = given.file if is_url(given.file) else str(Path(str(resolve(given.file, ""))).absolute())
    # What was left out is as the flow has it.
    parameters = {"run_file": file, **given.options, "champion": champion}
    with server() as client:
        base = _deployment(client, RETRAIN)
        _refuse_taken(client, name, file, champion)
        client.create_deployment(
            base.flow_id,
            f"{PREFIX}{name}",
            schedules=[DeploymentScheduleCreate(schedule=made[0], active=True)],
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=OVERLAP[given.overlap.casefold()]),
            parameters=parameters,
            description=f"Retrains {file}, {_when(made[0])}.",
            tags=base.tags,
            work_pool_name=base.work_pool_name,
            work_queue_name=base.work_queue_name,
            entrypoint=base.entrypoint,
            parameter_openapi_schema=base.parameter_openapi_schema,
            pull_steps=[],
            enforce_parameter_schema=True,
            job_variables=base.job_variables,
        )
    waits = "the next one waits" if given.overlap.casefold() == "wait" else "the next one is left out"
    return [
        f"rml/{PREFIX}{name}: {_when(made[0])}; where one takes longer, {waits}",
        f"run file   {file}: read at each firing, so that changes count from the next one on",
        f"champion   {champion}/champion.pt",
        f"now        prefect deployment run rml/{PREFIX}{name}",
        f"no more    rml schedule --remove {name}",
    ]


def _check_names(name: str, given: Scheduling) -> None:
    problems = []
    if NAME.fullmatch(name) is None:
        what = f"{shown(name)} does not fit"
        problems.append(Problem("--name", what, "letters, digits, dots, - and _, as digits or digits-weekly"))
    if given.overlap.casefold() not in OVERLAP:
        what = f"{shown(given.overlap)} does not fit"
        problems.append(Problem("--overlap", what, listed(OVERLAP), nearest(given.overlap, list(OVERLAP))))
    if problems:
        raise Refused(problems)


def _champion(given: Scheduling) -> Path:
    """The champion's folder, where the retraining is right as a worker will make it, which expands no variables but
    its own; data files are looked at where the worker is of this machine."""
    try:
        if is_here(api_url()):
            return retrain.plan_of(given.options, None, given.file, origin=Origin.SENT).champions.folder
        collected = Collected()
        wanted = collected.of(parse, Retraining, given.options, "")
        mapping, base = read_json(given.file), folder_of(given.file)
        folder = collected.of(planned_without_data, wanted or Retraining(), mapping, base, None, Origin.SENT)
        collected.end()
        assert folder is not None
        return folder
    except Refused as refused:
        options = {name: f"--{name.replace('_', '-')}" for name in Retraining.model_fields}
        raise Refused(
            Problem(options.get(each.where, each.where), each.what, each.allowed, each.remedy)
            for each in refused.problems
        ) from None


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        what = f"the Prefect server at {api_url()} has no deployment {name}"
        raise Refused([Problem("", what, remedy="rml up makes it")]) from None


def _refuse_taken(client: SyncPrefectClient, name: str, file: str, champion: str) -> None:
    """Neither a name nor a champion is shared by two run files."""
    for each in _scheduled(client):
        its = each.parameters
        own = each.name == f"{PREFIX}{name}"
        if own and its.get("run_file") != file:
            what = f"{name} is what the schedule of {its.get('run_file')} is called"
            raise Refused([Problem("--name", what, "another name", f"or rml schedule --remove {name}")])
        if not own and its.get("champion") == champion:
            what = f"{champion} is where rml/{each.name} has its champion"
            raise Refused([Problem("--champion", what, "a folder of its own")])


def _scheduled(client: SyncPrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    page = None
    while page is None or len(page) == MOST:
        page = client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(like_=PREFIX)),
            limit=MOST,
            offset=len(found),
            sort=DeploymentSort.NAME_ASC,
        )
        found += page
    # The server looks for it anywhere in a name.
    return [each for each in found if each.name.startswith(PREFIX)]


def remove(name: str) -> list[str]:
    """Raises `Refused` where there is no such schedule, and where a run of it is in progress; it fires no more then."""
    with server() as client:
        found = {each.name.removeprefix(PREFIX): each for each in _scheduled(client)}
        # A run file may be called retrain-digits.json; a name is taken with the prefix of its deployment, too.
        named = name if name in found else name.removeprefix(PREFIX)
        if named not in found:
            what = f"there is no schedule {shown(name)}"
            raise Refused([Problem("--remove", what, listed(found) or "there are none", nearest(name, list(found)))])
        gone = found[named]
        for each in gone.schedules:
            client.update_deployment_schedule(gone.id, each.id, active=False)
        # Those that wait for their time, or for another one, would wait for ever.
        while waiting := _runs(client, gone, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC, MOST):
            for run in waiting:
                with suppress(ObjectNotFound):
                    client.delete_flow_run(run.id)
        _refuse_in_progress(client, gone)
        client.delete_deployment(gone.id)
    return [f"rml/{gone.name} is removed; its champion stays in {gone.parameters.get('champion')}"]


def _refuse_in_progress(client: SyncPrefectClient, gone: DeploymentResponse) -> None:
    """Without its deployment, a run is none that a worker would see to."""
    begun = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]
    problems = []
    for run in _runs(client, gone, begun, FlowRunSort.EXPECTED_START_TIME_ASC, MOST):
        state = (run.state.name if run.state is not None else None) or "in progress"
        what = f"run {run.name} of rml/{gone.name} is {state}; nothing fires any more"
        remedy = f"wait until it has ended, or `prefect flow-run cancel {run.id}`; then remove the schedule again"
        problems.append(Problem("--remove", what, remedy=remedy))
    if problems:
        raise Refused(problems)


def schedules() -> list[str]:
    """A few lines for each schedule: when, what, and what came of it last."""
    with server() as client:
        lines = []
        for each in _scheduled(client):
            when = " and ".join(_when(one.schedule) for one in each.schedules) or "never by itself"
            lines += [
                f"rml/{each.name}: {when}" + (" (paused)" if each.paused else ""),
                f"    run file  {each.parameters.get('run_file')}",
                f"    champion  {each.parameters.get('champion')}/champion.pt",
                f"    last      {_last(client, each)}",
                f"    next      {_next(client, each)}",
            ]
    return lines or ["nothing is scheduled: rml schedule FILE --every 1d"]


def _last(client: SyncPrefectClient, deployment: DeploymentResponse) -> str:
    ended = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.RUNNING]
    runs = _runs(client, deployment, ended, FlowRunSort.EXPECTED_START_TIME_DESC)
    if not runs or runs[0].state is None:
        return "not yet"
    state = runs[0].state
    said = (state.message or "").splitlines()[:1] or [state.name or ""]
    # How a round has ended stands in its message.
    name = "" if state.type == StateType.COMPLETED or said == [state.name] else f"{state.name}: "
    return f"{_time(state.timestamp)}: {name}{said[0]}"


def _next(client: SyncPrefectClient, deployment: DeploymentResponse) -> str:
    runs = _runs(client, deployment, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC)
    return _time(runs[0].expected_start_time) if runs and runs[0].expected_start_time is not None else "not known yet"


def _runs(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    states: list[StateType],
    sort: FlowRunSort,
    limit: int = 1,
) -> list[FlowRun]:
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        sort=sort,
        limit=limit,
    )


def _when(schedule: Any) -> str:
    if isinstance(schedule, CronSchedule):
        return f"cron {schedule.cron}, {schedule.timezone or 'UTC'}"
    if isinstance(schedule, IntervalSchedule):
        return f"every {_text(schedule.interval.total_seconds())}"
    return str(schedule)


def _text(seconds: float) -> str:
    left, parts = int(seconds), []
    for unit, each in sorted(UNITS.items(), key=lambda known: -known[1]):
        count, left = divmod(left, each)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts)


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
