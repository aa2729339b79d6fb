"""The flow `rml`: the phases of a run file's plan as Prefect task runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.utilities.annotations import quote
from pydantic import WithJsonSchema

from flows import attempt, stores
from flows.console import OF_MANY
from flows.form import section_schema
from flows.page.shown import page
from flows.parameters import refuse_base
from flows.phases import Outcome, execute
from flows.submission import within_limit
from rml_core.check import Checked, check, check_resume
from rml_core.config.limits import memory_limit
from rml_core.config.problem import Refused, RunFailed, collect, redacted
from rml_core.config.remote import text_of
from rml_core.config.trust import without_secrets
from rml_core.reading import read_with_data
from rml_core.run import ROOT
from tasks.cluster import check_address
from tasks.load import Source, load
from tasks.progress import log
from tasks.ranks import refuse_several, threads
from tasks.slice import Slicing, slice_
from tasks.transform import transform

# What load, slice and transform stand for lies on disk, under a key of what it was made from. Their task runs are
# cached by that key; a prepared folder that is gone or damaged is made again.
PREPARED = {load, slice_, transform}


# Seconds.
MOMENT = 1.0

RunFile = Annotated[dict[str, Any], WithJsonSchema(section_schema())]


_name: ContextVar[str] = ContextVar("name of the phase")


class AsTasks:
    """Calls the phases of one flow run as Prefect task runs."""

    def __init__(self) -> None:
        # Prefect knows a result again by its address: of one that is gone, another one's edges would seem to come.
        self._results: list[Any] = []

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        _name.set(name)
        if function in PREPARED:
            source, *others = arguments
            # What training and test samples are made from has parts in common: no data flow by them.
            result = _cached(function, source)(quote(source), *others)
        else:
            result = _task_of(function)(*arguments)
        self._results.append(result)
        return self._results[-1]


@cache
def _task_of(function: Callable[..., Any]) -> Any:
    """One Prefect task for all runs of a phase's function: making one reads its source, which takes milliseconds."""
    options: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
    return task(name=_kind(function), task_run_name=lambda: _name.get(), **options)(function)


def _cached(function: Callable[..., Any], source: Source | Slicing) -> Any:
    """The task of a phase whose result is taken from the cache, unless what it stands for is gone or damaged."""
    key, again = f"rml-{source.key}", not source.is_whole()
    return task(
        name=_kind(function),
        task_run_name=lambda: _name.get(),
        cache_key_fn=lambda context, parameters: key,
        refresh_cache=again,
        persist_result=True,
    )(function)


def _kind(function: Callable[..., Any]) -> str:
    return function.__name__.strip("_").replace("_", " ")


@flow(name="rml", persist_result=False)
def rml(
    neural_network: RunFile,
    app: str | None = None,
    base: str | None = None,
    resume: str | None = None,
    ranks: int | None = None,
    scheduler: str | None = None,
) -> State[None]:
    """Train, evaluate or run a network as a run file says.

    Args:
        neural_network: The run file's content.
        app: What the run is for: dnn.
        base: The folder that relative paths are against; left out, paths have to be absolute.
        resume: "auto" goes on from the newest checkpoint of the latest run.
        ranks: Training processes.
        scheduler: The address of a Dask cluster; left out, threads of this process.
    """
    log_to_server()
    with page() as shown, attempt.made() as now:
        stores.use()
        given = (lambda: refuse_several(ranks), lambda: check_resume(resume), lambda: check_address(scheduler))
        collect(threads, memory_limit, *given, lambda: refuse_base(base))
        checked = check(read_with_data({ROOT: neural_network}, base), app)
        outcome = execute(checked, AsTasks(), resuming=resume, scheduler=scheduler, attempt=now)
        shown.done(outcome)
        return shown.completed


def run_checked(checked: Checked, *, resume: str | None, ranks: int | None, scheduler: str | None) -> Outcome:
    """Run the flow in this process on what has been checked already."""
    outcomes: list[Outcome] = []

    @flow(name=rml.name, description=rml.description, persist_result=False)
    def here(
        neural_network: RunFile,
        app: str | None = None,
        base: str | None = None,
        resume: str | None = None,
        ranks: int | None = None,
        scheduler: str | None = None,
    ) -> State[None]:
        log_to_server()
        if get_current_settings().api.url is not None:
            log.info(f"flow run {flow_run.name}: {flow_run.ui_url}")
        with page() as shown, attempt.made() as now:
            outcomes.append(execute(checked, AsTasks(), resuming=resume, scheduler=scheduler, attempt=now))
            shown.done(outcomes[0])
            return shown.completed

    section = within_limit(without_secrets({ROOT: checked.run.mapping[ROOT]}))[ROOT]
    here(section, checked.app, redacted(text_of(checked.run.base)), resume, ranks, scheduler)
    return outcomes[0]


def log_to_server() -> None:
    """What a run says goes to the log of its flow run, and what Prefect says of failures without tracebacks of those
    that the user can mend."""
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, APILogHandler) for handler in log.handlers):
        handler = APILogHandler()
        handler.addFilter(_Seldom())
        log.addHandler(handler)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], Refused | RunFailed):
        record.exc_info = None
    return True


class _Seldom(logging.Filter):
    """Of thousands of short epochs the server is told one a moment: the table of epochs, and the logs beside the
    checkpoints, have them all."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -MOMENT

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, OF_MANY, False):
            return True
        if record.created - self._last < MOMENT:
            return False
        self._last = record.created
        return True
