"""What a run is for: an app a file. The flow's parameter `app` chooses it."""

from __future__ import annotations

from rml_core.apps import dnn
from rml_core.config.problem import Problem, Refused, listed, nearest

APPS = {"dnn": dnn}
LATER = ("pde", "obj", "gan")


def named(app: str | None) -> str:
    """The app of that name in any case; `dnn` when left out.

    Raises:
        Refused: there is no such app, or not yet.
    """
    if app is None:
        return "dnn"
    folded = app.casefold()
    if folded in APPS:
        return folded
    what = f'app "{folded}" is not available yet' if folded in LATER else f'unknown app "{app}"'
    raise Refused([Problem("--app", what, listed(APPS), nearest(app, list(APPS)))])
