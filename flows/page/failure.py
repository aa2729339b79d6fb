"""What stands on the page of a run that has failed, or was interrupted: why, where, and what to do."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.markdown import code, fenced, plain
from rml_core.config.problem import Refused, RunFailed, redacted

if TYPE_CHECKING:
    from flows.begun import Begun


# How a run file is submitted.
SUBMIT = "rml submit FILE"


@dataclass(frozen=True)
class FlowRun:
    """`anew`: the command that submits another one to the workers; None: no worker runs it, and Prefect cannot start it
    again."""

    id: str
    anew: str | None


def what_to_do(error: BaseException, begun: Begun | None, run: FlowRun) -> str:
    """Markdown: the reason, the phase or the place in the run file, and the commands that go on."""
    if isinstance(error, Refused):
        lines = _refused(error, run)
    elif isinstance(error, Exception):
        lines = _failed(error, begun, run)
    else:
        lines = ["## The run was interrupted", "", *_going_on(begun, run)]
    return redacted("\n".join(lines))


def _refused(refused: Refused, run: FlowRun) -> list[str]:
    count = len(refused.problems)
    lines = [f"## The run file was refused: {count} problem{'s' if count > 1 else ''}", "", "Nothing has been done."]
    for problem in refused.problems:
        what = plain(problem.what)
        lines += ["", f"- {code(problem.where)}: {what}" if problem.where else f"- {what}"]
        lines += [f"  - allowed: {plain(problem.allowed)}"] if problem.allowed else []
        lines += [f"  - {plain(problem.remedy)}"] if problem.remedy else []
    lines += ["", "## What to do", "", "Mend what is listed, see that `rml validate FILE` finds nothing more, then"]
    return [*lines, "", *_commands(run.anew or "rml run FILE")]


def _failed(error: Exception, begun: Begun | None, run: FlowRun) -> list[str]:
    phase, reason = phase_of(error, begun)
    title = f"## The run failed in the phase *{plain(phase)}*" if phase else "## The run failed"
    lines = [title, "", f"> {plain(reason)}", ""]
    if not isinstance(error, RunFailed):
        lines += ["The log has the traceback.", ""]
    return [*lines, "## What to do", "", "Mend what the reason says, then", "", *_going_on(begun, run)]


def phase_of(error: Exception, begun: Begun | None) -> tuple[str, str]:
    """(the phase that failed, why); "": it failed in none."""
    text = " ".join(str(error).split()) or type(error).__name__
    names = [phase.name for phase in begun.planned.phases] if begun is not None else []
    name, _, reason = text.partition(": ")
    if name in names:
        return name, reason
    return "", text if isinstance(error, RunFailed) else f"{type(error).__name__}: {text}"


def _going_on(begun: Begun | None, run: FlowRun) -> list[str]:
    saved = begun.places.checkpoints if begun is not None else None
    here = f"rml run {_file(begun)}"
    anew, again = (f"prefect flow-run retry {run.id}",) * 2 if run.anew else (here, f"{here} --resume auto")
    newest = next((str(path) for path, _ in begun.places.written() if path.parent == saved), "") if begun else ""
    if saved is None:
        why = "starts from the beginning: `checkpoints.save` is not set, and no weights are kept."
        lines = [*_commands(anew), "", why]
    elif not newest:
        lines = [*_commands(anew), "", f"starts from the beginning: there is no checkpoint in {code(saved)} yet."]
    else:
        why = f"goes on from the newest checkpoint in {code(saved)}: what is complete is kept."
        lines = [*_commands(again), "", why]
    if run.anew == SUBMIT:
        # What was submitted is what is tried again, whatever the file says by now.
        changed = "Where the run file itself must change, submit the changed one"
        command = f"{SUBMIT} --set checkpoints.resume=auto" if newest else SUBMIT
        lines += ["", f"{changed}, so that it goes on too:" if newest else f"{changed}:", "", *_commands(command)]
    return lines


def _file(begun: Begun | None) -> str:
    source = begun.checked.run.source if begun is not None else None
    if source is None:
        return "FILE"
    return shlex.quote(str(source.absolute() if isinstance(source, Path) else source))


def _commands(*lines: str) -> list[str]:
    return [fenced("\n".join(lines), "sh")]
