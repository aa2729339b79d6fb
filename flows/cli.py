"""The commands `rml` and `rmldnn`. Each imports what it needs when it is called."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from flows import production
from flows.command_line import Debug, FileArgument, or_problems, place, say_problems, with_variables

app = typer.Typer(
    name="rml",
    help="Train and run deep networks from one JSON file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.add_typer(production.commands)


class Terminated(BaseException):
    """SIGTERM came."""


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"rml {installed('rml')}")
        raise typer.Exit


@app.command("run")
def run_command(
    file: FileArgument,
    app_name: Annotated[str | None, typer.Option("--app", metavar="A", help="What the run is for: dnn.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in data.batch_size=32.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="auto", help="Go on from the newest checkpoint of the latest run.")
    ] = None,
    ranks: Annotated[int | None, typer.Option(metavar="N", help="Training processes.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Dask cluster to use.")] = None,
    untracked: Annotated[bool, typer.Option("--untracked", help="Run without Prefect.")] = False,
    debug: Debug = False,
) -> None:
    """Run a run file as a Prefect flow, here."""
    _run(
        file,
        app_name,
        settings or [],
        resume=resume,
        ranks=ranks,
        scheduler=scheduler,
        tracked=not untracked,
        base=None,
    )


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Run files.", show_default=False, parser=place)],
    skip_data: Annotated[bool, typer.Option("--skip-data", help="Leave the data files alone.")] = False,
    debug: Debug = False,
) -> None:
    """Say every problem of every file."""
    from rml_core.check import check, check_without_data
    from rml_core.config.problem import Refused
    from rml_core.reading import read_with_data
    from rml_core.run import read

    def warnings_of(file: str) -> tuple[str, ...]:
        if not skip_data:
            return check(read_with_data(file)).warnings
        check_without_data(read(file))
        return ()

    wrong = 0
    for file in files:
        try:
            warnings = with_variables(partial(warnings_of, file))
        except Refused as refused:
            if wrong:
                print(file=sys.stderr)
            wrong += 1
            say_problems(file, refused)
            continue
        for warning in warnings:
            print(f"{file}: warning: {warning}", file=sys.stderr)
        print(f"{file}: ok")
    if wrong:
        raise typer.Exit(2)


@app.command()
def plan(
    file: FileArgument,
    app_name: Annotated[str | None, typer.Option("--app", metavar="A", help="What the run is for: dnn.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    debug: Debug = False,
) -> None:
    """Show what a run would do, without doing it."""
    from flows.plan import plan as plan_of
    from rml_core.check import check
    from rml_core.reading import read_with_data

    planned = or_problems(file, lambda: with_variables(lambda: plan_of(check(read_with_data(file), app_name))))
    if as_json:
        print(json.dumps(planned.as_json(), indent=2))
    else:
        print(planned.as_text())


@app.command()
def network(
    file: FileArgument,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    dot: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the graph as Graphviz.")] = None,
    debug: Debug = False,
) -> None:
    """Show the network of a run file or a Keras JSON file."""
    from flows.network import described

    found = or_problems(file, lambda: described(file))
    if dot is not None:
        from rml_core.layers.dot import to_dot

        or_problems(file, lambda: _write(dot, "--dot", to_dot(found)))
    if as_json:
        shape = [None, *found.output_shape_keras]
        counts = {"parameters": found.parameters, "trainable": found.trainable, "layers": found.layers}
        print(json.dumps({**counts, "output_shape": shape}))
    else:
        from flows.network import table

        print(table(found))


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A file that checkpoints.save left.", parser=place)
    ],
    format_name: Annotated[str, typer.Option("--format", metavar="onnx|torch", help="What to write.")] = "onnx",
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Where to; without it beside the checkpoint.")] = None,
    debug: Debug = False,
) -> None:
    """Write a trained network for onnxruntime, or for torch alone."""
    from flows.export import export as written

    print(or_problems(checkpoint, lambda: written(checkpoint, format_name, out)))


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the run file's JSON schema, for editors."""
    from rml_core.run import schema as published

    print(json.dumps(published(), indent=2))


def main() -> NoReturn:
    """The command `rml`."""
    _exit_of(lambda: app(prog_name="rml"), debug="--debug" in sys.argv)


def rmldnn() -> NoReturn:
    """The command of rmldnn's users: `rmldnn --config=FILE [--app=A]`."""
    _exit_of(lambda: _rmldnn(sys.argv[1:]), debug="--debug" in sys.argv)


def _rmldnn(arguments: list[str]) -> None:
    import argparse

    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--config=", "--app="):
            joined[-1] += argument
        else:
            joined.append(argument)
    parser = argparse.ArgumentParser("rmldnn", description="Run an rmldnn configuration file.")
    parser.add_argument("--config", metavar="FILE", help="the run file, required")
    parser.add_argument("--app", metavar="A", help="what the run is for: dnn")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    given, others = parser.parse_known_args(joined)
    if given.config is None:
        files = [other for other in others if not other.startswith("-")]
        meant = f"; did you mean --config={files[0]}?" if len(files) == 1 else ""
        parser.error(f"the following arguments are required: --config{meant}")
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if not given.config:
        parser.error("argument --config: names no file")
    from flows.tracking import is_configured

    _run(
        place(given.config),
        given.app,
        [],
        resume=None,
        ranks=_launched_ranks(),
        scheduler=None,
        tracked=is_configured(),
        base=Path.cwd(),
    )


def _launched_ranks() -> int | None:
    """How many processes mpirun or srun has started."""
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(variable, "").isdecimal():
            return int(os.environ[variable])
    return None


def _run(
    file: str,
    app_name: str | None,
    settings: list[str],
    *,
    resume: str | None,
    ranks: int | None,
    scheduler: str | None,
    tracked: bool,
    base: Path | None,
) -> None:
    from rml_core.config.paths import folder_of, resolve
    from rml_core.config.problem import collect
    from rml_core.run import read_json, with_settings

    signal.signal(signal.SIGTERM, _terminate)

    def checked_run() -> Any:
        from rml_core.check import check, check_resume
        from rml_core.config.limits import memory_limit
        from rml_core.reading import read_with_data
        from tasks.cluster import check_address
        from tasks.ranks import refuse_several, threads

        given = (lambda: refuse_several(ranks), lambda: check_resume(resume), lambda: check_address(scheduler))
        collect(threads, memory_limit, *given)
        source: str | Mapping[str, Any] = with_settings(read_json(file), settings) if settings else file
        folder = base if base is not None else folder_of(file)
        run = replace(read_with_data(source, folder), source=resolve(file, ""))
        if tracked:
            from flows import tracking

            tracking.start_server()
        return check(run, app_name)

    checked = or_problems(file, checked_run)
    from flows import console

    def executed() -> Any:
        if tracked:
            from flows import tracking

            return tracking.run(checked, resume=resume, ranks=ranks, scheduler=scheduler)
        from flows.phases import as_it_is, execute

        outcome = execute(checked, as_it_is, resuming=resume, scheduler=scheduler)
        if outcome.places.logs is not None or outcome.places.prediction is not None:
            from flows import report

            report.put_pictures(outcome)
        return outcome

    with console.shown(checked.run.file.num_epochs):
        outcome = or_problems(file, executed)
    console.say_written(outcome.places.written(), outcome.seconds)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _write(path: Path, where: str, text: str) -> None:
    from rml_core.config.problem import Problem, Refused

    try:
        path.write_text(text)
    except OSError as error:
        what = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
        raise Refused([Problem(where, what)]) from None


def _exit_of(action: Callable[[], Any], debug: bool) -> NoReturn:
    """Run a command and end the process with the exit status that the outcome has."""
    from rml_core.config.problem import RunFailed

    status = 0
    try:
        action()
    except typer.Exit as done:
        status = done.exit_code
    except KeyboardInterrupt:
        status = 130
    except Terminated:
        status = 143
    except BrokenPipeError:
        # Who read our output has had enough; what Python would still write at its end has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except RunFailed as failed:
        if debug:
            traceback.print_exception(failed)
        print(failed, file=sys.stderr)
        status = 1
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{text}\n    this should not happen: please report it with what --debug shows", file=sys.stderr)
        status = 1
    sys.exit(status)
