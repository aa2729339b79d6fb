"""What the commands have in common: how they take a file, and how they say why it is refused."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def place(given: str) -> str:
    """A file as it is named in messages; `Path` would take a slash out of a URL."""
    return given if "://" in given else str(Path(given))


FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="The run file, a path or a URL.", show_default=False, parser=place)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def with_variables(action: Callable[[], Any]) -> Any:
    """The result of `action`; its problems with those of the environment's variables that a run reads."""
    from rml_core.config.limits import memory_limit
    from rml_core.config.problem import collect
    from tasks.ranks import threads

    results: list[Any] = []
    collect(threads, memory_limit, lambda: results.append(action()))
    return results[0]


def or_problems(file: str, action: Callable[[], Any]) -> Any:
    """The result of `action`; where it is refused, the list of problems and exit status 2."""
    from rml_core.config.problem import Refused

    try:
        return action()
    except Refused as refused:
        say_problems(file, refused)
        raise typer.Exit(2) from None


def say_problems(file: str, refused: Any) -> None:
    if "--debug" in sys.argv:
        traceback.print_exception(refused)
    count = len(refused.problems)
    print(f"{file}: {count} problem{'s' if count > 1 else ''}\n\n{refused}", file=sys.stderr)
