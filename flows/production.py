"""The commands of the service: put it up, submit run files to it, see what runs, take it down, clean behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.command_line import Debug, FileArgument, or_problems

commands = typer.Typer()

StateFolder = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Where all of the service lies (RML_STATE; else ~/.local/state/rml)."),
]


@commands.command()
def up(
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="The server's port (4200).")] = None,
    gpu_runs: Annotated[int | None, typer.Option(metavar="N", help="Runs at a time on the pool gpu (2 a GPU).")] = None,
    cpu_runs: Annotated[int | None, typer.Option(metavar="N", help="Runs at a time on the pool cpu.")] = None,
    state: StateFolder = None,
    debug: Debug = False,
) -> None:
    """Put the service up on this machine: server, workers, deployments."""
    from flows.service.state import named
    from flows.service.up import up as put_up

    def lines() -> list[str]:
        return put_up(named(state), host=host, port=port, gpu_runs=gpu_runs, cpu_runs=cpu_runs)

    print("\n".join(or_problems("rml up", lines)))


@commands.command()
def down(state: StateFolder = None, debug: Debug = False) -> None:
    """Take the service down; runs in progress save what they have, and go on at the next `rml up`."""
    from flows.service.down import down as take_down
    from flows.service.state import named

    print("\n".join(or_problems("rml down", lambda: take_down(named(state)))))


@commands.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    state: StateFolder = None,
    debug: Debug = False,
) -> None:
    """Say what the service runs; exit status 1 where not all is well."""
    from flows.service.state import named
    from flows.service.status import as_text
    from flows.service.status import status as status_of

    found = or_problems("rml status", lambda: status_of(named(state)))
    print(json.dumps(found.content, indent=2) if as_json else as_text(found))
    if not found.well:
        raise typer.Exit(1)


@commands.command()
def submit(
    file: FileArgument,
    deployment: Annotated[
        str, typer.Option(metavar="NAME", help="train, evaluate, retrain, or retrain-NAME of a schedule.")
    ] = "train",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in data.batch_size=32.")
    ] = None,
    app_name: Annotated[str | None, typer.Option("--app", metavar="A", help="What the run is for: dnn.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="auto", help="Go on from the newest checkpoint of the latest run.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Dask cluster to use.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Say how the run goes until it has ended.")] = False,
    skip_data: Annotated[bool, typer.Option("--skip-data", help="Leave the data files to the worker.")] = False,
    debug: Debug = False,
) -> None:
    """Submit a run file to a deployment, where a worker runs it."""
    from flows.submission import submit_command

    given = {"app": app_name, "resume": resume, "scheduler": scheduler}
    overrides = {key: value for key, value in given.items() if value is not None}
    options = {"watched": watch, "skip_data": skip_data}
    status = or_problems(file, lambda: submit_command(file, deployment, settings or [], overrides, **options))
    if status:
        raise typer.Exit(status)
