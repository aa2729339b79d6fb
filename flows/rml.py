"""The flow `rml`: the phases of a run file's plan as Prefect task runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import WithJsonSchema

from flows import report
from flows.phases import Outcome, execute
from rml_core.check import Checked, check
from rml_core.run import ROOT, read, schema
from tasks.load import load
from tasks.ranks import refuse_several
from tasks.transform import transform

# What load and transform leave lies on disk, under a key of what it was made from. Their task runs are cached by that
# key; a prepared folder that is gone or damaged is made again.
PREPARED = {load, transform}


def _section_schema() -> dict[str, Any]:
    """The schema of what stands under `neural_network`, with the definitions it refers to."""
    whole = schema()
    return {**whole["properties"][ROOT], "$defs": whole["$defs"]}


RunFile = Annotated[dict[str, Any], WithJsonSchema(_section_schema())]


def as_task(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A phase as a Prefect task run named `name`."""
    kind = function.__name__.replace("_", " ").strip()
    if function in PREPARED:
        source = arguments[0]
        cached = task(
            function,
            name=kind,
            task_run_name=name,
            cache_key_fn=lambda context, parameters: f"rml-{kind}-{source.key}",
            refresh_cache=not source.is_whole(),
            persist_result=True,
        )
        return cached(*arguments)
    return task(function, name=kind, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(*arguments)


@flow(name="rml", persist_result=False, validate_parameters=False)
def rml(
    neural_network: RunFile,
    app: str | None = None,
    base: str | None = None,
    resume: str | None = None,
    ranks: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Train, evaluate or run a network as a run file says.

    neural_network: the run file's content. app: dnn. base: the folder that relative paths are against.
    resume: "auto" goes on from the newest checkpoint. ranks: training processes. scheduler: the address of a
    Dask cluster.
    """
    refuse_several(ranks)
    checked = check(read({ROOT: neural_network}, base), app)
    publish(execute(checked, as_task, resuming=resume, scheduler=scheduler), checked)
