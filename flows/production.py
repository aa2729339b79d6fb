"""The commands of the service: put it up, submit run files to it, see what runs, take it down, clean behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.command_line import Debug, FileArgument, or_problems, place

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
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Tell this address of failed and stalled runs and better models; or none."),
    ] = None,
    state: StateFolder = None,
    debug: Debug = False,
) -> None:
    """Put server, workers and deployments up on this machine."""
    from flows.service.state import named
    from flows.service.up import up as put_up

    def lines() -> list[str]:
        return put_up(named(state), host=host, port=port, gpu_runs=gpu_runs, cpu_runs=cpu_runs, webhook=webhook)

    print("\n".join(or_problems("rml up", lines)))


@commands.command()
def down(state: StateFolder = None, debug: Debug = False) -> None:
    """Take them down; runs in progress go on at the next `rml up`."""
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
def register(
    gpu_runs: Annotated[int, typer.Option(min=0, metavar="N", help="Runs at a time on the pool gpu; 0: none.")] = 0,
    cpu_runs: Annotated[int, typer.Option(min=0, metavar="N", help="Runs at a time on the pool cpu; 0: no limit.")] = 0,
    debug: Debug = False,
) -> None:
    """Tell a server that others keep of pools and deployments."""
    from flows.service.register import register as tell

    print("\n".join(or_problems("rml register", lambda: tell(gpu_runs, cpu_runs))))


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


@commands.command()
def schedule(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="The run file; without it, what is scheduled.", parser=place)
    ] = None,
    cron: Annotated[str | None, typer.Option(metavar='"0 3 * * 1"', help="Minute, hour, day, month, weekday.")] = None,
    every: Annotated[str | None, typer.Option(metavar="1h", help="How often: 15m, 1h, 1d, 1w, ...")] = None,
    timezone: Annotated[str | None, typer.Option(metavar="NAME", help="Of --cron, as Europe/Vienna (UTC).")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of rml/retrain-NAME; else the file's.")] = None,
    champion: Annotated[
        str | None, typer.Option(metavar="DIR", help="The champion's folder (champion, beside the run file).")
    ] = None,
    if_unchanged: Annotated[
        str | None, typer.Option(metavar="stop|train", help="What to do where nothing is new (stop).")
    ] = None,
    warm_start: Annotated[
        bool | None, typer.Option("--warm-start/--cold-start", help="Begin with the champion's weights, or not.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="What is compared: accuracy, loss, recall:CLASS, ...")
    ] = None,
    margin: Annotated[float | None, typer.Option(metavar="X", help="Better has to be by more than this (0).")] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="So many challengers' folders stay (3).")] = None,
    overlap: Annotated[
        str, typer.Option(metavar="wait|skip", help="What a firing does while the one before still runs.")
    ] = "wait",
    remove: Annotated[str | None, typer.Option(metavar="NAME", help="Remove a schedule.")] = None,
    debug: Debug = False,
) -> None:
    """Retrain by the clock: make, list or remove a schedule."""
    options = {"champion": champion, "if_unchanged": if_unchanged, "warm_start": warm_start, "metric": metric}
    given = {key: value for key, value in {**options, "margin": margin, "keep": keep}.items() if value is not None}

    def lines() -> list[str]:
        from flows.schedules import asked

        return asked(file, remove, cron=cron, every=every, timezone=timezone, name=name, overlap=overlap, options=given)

    print("\n".join(or_problems(file or "rml schedule", lines)))


@commands.command()
def clean(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Folders of results, to remove what killed runs have left in them."),
    ] = None,
    older_than: Annotated[
        str, typer.Option(metavar="30d", help="What no run has used for so long goes (30d; m, h, d, w).")
    ] = "30d",
    larger_than: Annotated[
        str | None, typer.Option(metavar="20GB", help="What was not used for longest goes until the rest is no larger.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    debug: Debug = False,
) -> None:
    """Remove prepared samples nobody uses, and what dead runs left."""
    from flows.cleaning import clean_command

    print("\n".join(or_problems("rml clean", lambda: clean_command(folders or [], older_than, larger_than, dry_run))))
