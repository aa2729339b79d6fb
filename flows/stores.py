"""The keys of stores behind URLs, from a Prefect block: none has to stand in a run file, or in a worker's environment.

A Secret block holds what fsspec's configuration would: options by protocol, `{"s3": {"key": "...", "secret": "..."}}`.
`RML_STORES` names the block, on the worker. https://filesystem-spec.readthedocs.io/en/latest/features.html#configuration
"""

from __future__ import annotations

import json
import os
from typing import Any

from rml_core.config.problem import Problem, Refused

VARIABLE = "RML_STORES"
ALLOWED = 'a Secret block with options by protocol: {"s3": {"key": "...", "secret": "..."}}'


def use() -> None:
    """Let every filesystem that this process makes from now on have the options of the block that `RML_STORES` names.

    Raises:
        Refused: there is no such block, or it holds something else; what it holds is not said.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return
    from fsspec.config import conf
    from prefect.blocks.system import Secret

    try:
        held = Secret.load(name).get()  # type: ignore[union-attr]
    except ValueError as error:
        what = f'there is no Secret block "{name}"' if "Unable to find" in str(error) else "the block cannot be read"
        remedy = "make it on the page Blocks, or with prefect.blocks.system.Secret"
        raise Refused([Problem(VARIABLE, what, ALLOWED, remedy)]) from None
    options = _options(held)
    if options is None:
        raise Refused([Problem(VARIABLE, f'the Secret block "{name}" holds something else', ALLOWED)])
    for protocol, given in options.items():
        conf[protocol] = {**conf.get(protocol, {}), **given}


def _options(held: Any) -> dict[str, dict[str, Any]] | None:
    if isinstance(held, str | bytes):
        try:
            held = json.loads(held)
        except ValueError:
            return None
    right = isinstance(held, dict) and all(isinstance(options, dict) for options in held.values())
    return held if right else None
