"""The commands of the service: put it up, submit run files to it, see what runs, take it down, clean behind it."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.command_line import Debug, FileArgument, or_problems

commands = typer.Typer()


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
