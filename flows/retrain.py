"""The flow of the deployment `rml/retrain`, and of those that `rml schedule` makes: a round of retraining."""

from __future__ import annotations

import base64
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect import flow
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import WithJsonSchema

from flows import attempt, stores
from flows.champion import PROMOTED, Row
from flows.markdown import plain
from flows.page.shown import page
from flows.parameters import problem_of_nul, refuse_base
from flows.retraining import Ended, Planned, Retraining, planned, retrained
from flows.rml import AsTasks, RunFile, log_to_server
from rml_core.config.limits import memory_limit
from rml_core.config.paths import folder_of
from rml_core.config.problem import Problem, Refused, collect
from rml_core.config.section import parse
from rml_core.config.trust import Origin, without_base
from rml_core.run import ROOT, read_json
from tasks.cluster import check_address
from tasks.ranks import refuse_several, threads

_PROPERTIES: dict[str, Any] = Retraining.model_json_schema()["properties"]


def _of(name: str) -> Any:
    return WithJsonSchema(_PROPERTIES[name])


@flow(name="rml", persist_result=False)
def retrain(
    neural_network: RunFile | None = None,
    run_file: str | None = None,
    champion: Annotated[Any, _of("champion")] = "champion",
    if_unchanged: Annotated[Any, _of("if_unchanged")] = "stop",
    warm_start: Annotated[Any, _of("warm_start")] = True,
    metric: Annotated[Any, _of("metric")] = None,
    margin: Annotated[Any, _of("margin")] = 0.0,
    keep: Annotated[Any, _of("keep")] = 3,
    app: str | None = None,
    base: str | None = None,
    ranks: int | None = None,
    scheduler: str | None = None,
) -> State[Any]:
    """Train a challenger where data or run file are new, and let the better of it and the champion be champion.

    Args:
        neural_network: The run file's content; or else run_file.
        run_file: The run file's path: it is read when the round begins, as it then is.
        champion: The folder of the champion, its history and its challengers.
        if_unchanged: Where nothing is new since the last round: "stop", or "train" all the same.
        warm_start: Begin with the champion's weights.
        metric: What both are compared by: accuracy, loss, mae, rmse, or recall:cats and the like.
        margin: The challenger has to be better by more than this.
        keep: So many of the newest challengers' folders stay.
        app: What the run is for: dnn.
        base: The folder that relative paths are against; left out, that of run_file, else paths have to be absolute.
        ranks: Training processes.
        scheduler: The address of a Dask cluster; left out, threads of the flow's process.
    """
    log_to_server()
    with page("prefect deployment run rml/retrain --params FILE") as shown, attempt.made() as now:
        stores.use()
        plan = plan_of(
            {"champion": champion, "if_unchanged": if_unchanged, "warm_start": warm_start, "metric": metric}
            | {"margin": margin, "keep": keep},
            neural_network,
            run_file,
            app,
            base,
            ranks,
            scheduler,
        )
        ended = retrained(
            plan, AsTasks(), now.run_id, attempt=now, trained=shown.done, promoted=lambda row: announce(plan, row)
        )
    show(ended)
    return Completed(name=ended.name, message=ended.message)


def plan_of(
    options: dict[str, Any],
    neural_network: dict[str, Any] | None,
    run_file: str | None,
    app: str | None = None,
    base: str | None = None,
    ranks: int | None = None,
    scheduler: str | None = None,
    origin: Origin | None = None,
) -> Planned:
    """What the flow's parameters mean, all of them checked at once. Raises `Refused` with every problem."""
    wanted: list[Retraining] = []
    mappings: list[Any] = []

    def parsed() -> None:
        wanted.append(parse(Retraining, options, ""))

    def given() -> None:
        if (neural_network is None) == (run_file is None):
            what = "is missing" if run_file is None else "stands beside neural_network, and both are the run file"
            raise Refused([Problem("run_file", what, remedy="give the file's path, or its content as neural_network")])
        mappings.append({ROOT: neural_network} if run_file is None else read_json(run_file))

    collected: list[Planned] = []
    checks = (threads, memory_limit, lambda: refuse_several(ranks), lambda: check_address(scheduler))

    def placed() -> None:
        paths = {"run_file": run_file, "champion": options.get("champion") if run_file is None else None}
        texts = {name: path for name, path in paths.items() if isinstance(path, str)}
        found = [without_base(path, name, origin) if base is None else None for name, path in texts.items()]
        found += [problem_of_nul(run_file, "run_file") if isinstance(run_file, str) else None]
        if any(found):
            raise Refused(problem for problem in found if problem is not None)

    def whole() -> None:
        folder = base if base is not None or run_file is None else folder_of(run_file)
        if mappings:
            retraining = wanted[0] if wanted else Retraining()
            collected.append(planned(retraining, mappings[0], folder, app, scheduler, origin))

    collect(placed, lambda: refuse_base(base, origin))
    collect(parsed, given, *checks, whole)
    return collected[0]


def announce(plan: Planned, row: Row) -> None:
    """Tell Prefect, and whoever has an automation for it, of a new champion; the same round is told of once."""
    folder = plan.champions.folder
    emit_event(
        PROMOTED,
        resource={
            "prefect.resource.id": f"rml.champion.{folder}",
            "prefect.resource.name": folder.name,
            "rml.champion": str(folder / "champion.pt"),
        },
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}],
        payload={
            "round": row["round"],
            "why": row["why"],
            "metric": row["metric"],
            "value": row["challenger"]["value"],
            "champion_value": (row["champion"] or {}).get("value"),
            "checkpoint": str(folder / "champion.pt"),
        },
        id=_event_id(row, str(folder)),
    )


def _event_id(row: Row, folder: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"{folder} {row['round']} {row['challenger']['run_id']}")


def show(ended: Ended) -> None:
    """The report as artifacts of the flow run."""
    if ended.row is None:
        create_markdown_artifact(plain(ended.message), key="champion", description="no round was made")
        return
    picture = f"data:image/png;base64,{base64.b64encode(ended.picture).decode()}"
    create_image_artifact(picture, key="champion-and-challenger", description=ended.message)
    create_markdown_artifact(ended.report, key="champion", description=ended.message)
