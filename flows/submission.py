"""What a run file becomes when it is submitted to a deployment: checked here, complete for a worker elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel

from flows.command_line import place, say_problems
from flows.parameters import KINDS, RUN_FILE, Asked, Kind, kind_of, problem_of_nul, problems_of
from rml_core.check import Collected
from rml_core.config.paths import folder_of, is_path_field, is_url, resolve
from rml_core.config.problem import Problem, Refused, listed, nearest, shown
from rml_core.config.remote import text_of
from rml_core.config.section import keys_of
from rml_core.config.trust import VARIABLE, expanded_to_send, needs_worker, with_secret
from rml_core.run import ROOT, RunFile, json_of, read_json, root_of, with_settings
from tasks.load import cache_folder

DEPLOYMENT = re.compile(r"train|evaluate|retrain(-.+)?")

# Prefect refuses parameters of more than 524,288 bytes; what a deployment itself has set counts too.
MOST_PARAMETER_BYTES = 500_000


class Submitted(NamedTuple):
    """The parameters of a flow run, and what its owner should know of them."""

    parameters: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """What somebody submits: `name` is what problems call it, `source` the file that it stands in, if any."""

    name: str
    mapping: Any
    folder: Any
    source: Any = field(default=None, compare=False)


def from_file(file: str) -> Given:
    """What the file, a path or a URL, holds. Raises `Refused` where it cannot be read."""
    return Given(file, read_json(file), folder_of(file), resolve(file, ""))


def from_text(text: str, name: str) -> Given:
    """What is given as text: its relative paths are those of the working directory, as if it stood in a file there."""
    return Given(name, json_of(text, name), Path.cwd())


def parameters_of(
    given: Given,
    deployment: str = "train",
    *,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    with_data: bool = True,
) -> Submitted:
    """What a flow run of `deployment` is given: checked, with `base`, and with nothing left that only the
    submitter's machine knows (`expanded`).

    Beside `neural_network` the mapping may have other parameters of the flow; `overrides` come before them. Data files
    are looked at if `with_data`, unless the worker alone knows where they are.

    Raises:
        Refused: with every problem.
    """
    kind = kind_of(deployment)
    collected = Collected()
    put_in = {key: value for key, value in (overrides or {}).items() if key in kind.names}
    mapping = _known(given.mapping, kind, put_in, collected)
    changed = collected.of(_changed, given.name, mapping, settings) if settings else None
    mapping |= changed or {}
    sent = {key: value for key, value in mapping.items() if value is not None}
    base = collected.of(_base, sent.get("base"), given.folder) or given.folder
    if isinstance(sent.get(ROOT), dict):
        sent[ROOT] = expanded(sent[ROOT])
    for key in kind.paths:
        if isinstance(sent.get(key), str):
            sent[key] = expanded_to_send(sent[key])
            if key in KINDS["retrain"].paths and not needs_worker(sent[key]) and "\0" not in sent[key]:
                # Where the run file lies is no matter of the folder that what stands in it is against.
                against = given.folder if key == RUN_FILE else base
                sent[key] = text_of(collected.of(resolve, sent[key], against) or given.folder)
    scheduled = deployment not in KINDS
    sends_base = ROOT in sent or deployment == "evaluate" or "base" in sent
    if sends_base and (problem := with_secret(text_of(base), "base")) is not None:
        collected.problems.append(problem)
    asked = Asked(sent, base, given.source, with_data and not _of_worker(sent), scheduled)
    alone = problems_of(asked, kind)
    wrong = {problem.where for problem in alone}
    collected.problems += alone
    right = replace(asked, parameters={key: value for key, value in sent.items() if key not in wrong})
    warnings = collected.of(kind.check, right) or ()
    if collected.problems:
        told = [each for each in collected.problems if each in alone or each.where not in wrong]
        raise Refused(dict.fromkeys(_named(problem, overrides or {}) for problem in told))
    if sends_base:
        sent["base"] = text_of(base)
    return Submitted(within_limit(sent), warnings)


def _known(mapping: Any, kind: Kind, overrides: Mapping[str, Any], collected: Collected) -> dict[str, Any]:
    """The parameters of `mapping`, and those that come before them, with a problem for each other key. Raises `Refused`
    where it is none, or where what belongs under `neural_network` stands beside it."""
    lacks_file = isinstance(mapping, Mapping) and ROOT not in mapping and overrides.get(ROOT) is None
    if not isinstance(mapping, Mapping) or (lacks_file and (kind.needs_file or _is_section(mapping, kind))):
        root_of(mapping)
    collected.problems += [
        Problem(key, "unknown key", listed(kind.names), nearest(key, kind.names))
        for key in mapping
        if key not in kind.names
    ]
    return {key: value for key, value in mapping.items() if key in kind.names} | dict(overrides)


def _changed(name: str, mapping: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The run file with what `--set` says of it. Raises `Refused`."""
    if mapping.get(ROOT) is None:
        what = f"changes the run file, and none stands in {name}"
        remedy = f"put its content there as {ROOT}; what else stands in the file is changed there"
        raise Refused([Problem("--set", what, remedy=remedy)])
    return with_settings({ROOT: mapping[ROOT]}, list(settings))


def _named(problem: Problem, options: Mapping[str, Any]) -> Problem:
    """What the checks of commands call an option is a parameter, unless it was given as an option."""
    name = problem.where.removeprefix("--")
    if problem.where == name or not any(name in kind.names for kind in KINDS.values()):
        return problem
    return replace(problem, where=f"--{name}" if name in options else name)


def _is_section(mapping: Mapping[str, Any], kind: Kind) -> bool:
    return set(mapping) <= set(keys_of(RunFile)) and not set(mapping) <= set(kind.names)


def parameters_for_prefect(
    deployment: str, given: str, overrides: Sequence[str], api_url: str | None
) -> tuple[str, set[str]]:
    """The JSON text that `prefect deployment run` is handed for `--params GIVEN`, and the names of those `overrides`
    that it has taken in; where it is refused, says every problem on standard error and ends the process with exit
    status 2.

    `given`: a file, JSON text, or `-` for standard input. `overrides`: what `--param` names, which comes before it.
    """
    name = given if given.strip() and _names_file(given) else "standard input" if given == "-" else "--params"
    try:
        if not given.strip():
            allowed = "a run file, a path or a URL; JSON text; or - for standard input"
            raise Refused([Problem("--params", "is empty", allowed)])
        if given == "-":
            # A mark of the byte order, as some programs write it, is none of the text.
            submitted = from_text(sys.stdin.read().removeprefix("\ufeff"), name)
        elif name == given:
            submitted = from_file(place(given))
        else:
            submitted = from_text(given, name)
        known = _known_overrides(overrides, deployment)
        made = parameters_of(submitted, deployment, overrides=known, with_data=is_here(api_url))
        say_warnings(name, made)
        return json.dumps(made.parameters), {key for key in known if key in made.parameters}
    except Refused as refused:
        say_problems(name, refused)
        raise SystemExit(2) from None


def say_warnings(name: str, submitted: Submitted) -> None:
    for warning in submitted.warnings:
        print(f"{name}: warning: {warning}", file=sys.stderr)


def submit_command(
    file: str,
    deployment: str,
    settings: list[str],
    overrides: Mapping[str, Any],
    *,
    watched: bool,
    skip_data: bool,
) -> int:
    """What `rml submit` does; gives its exit status.

    Raises:
        Refused: the file, with every problem of it; there is no server that takes it.
    """
    from flows.tracking import quieten

    quieten()
    from flows import watching

    name = deployment.removeprefix("rml/")
    if DEPLOYMENT.fullmatch(name) is None:
        raise Refused([Problem("--deployment", f"{shown(deployment)} does not fit", listed([*KINDS, "retrain-NAME"]))])
    with_data = is_here(watching.api_url()) and not skip_data
    made = parameters_of(from_file(file), name, settings=settings, overrides=overrides, with_data=with_data)
    say_warnings(file, made)
    run = watching.submit(f"rml/{name}", made.parameters)
    print(f"{run.name} ({run.id})\n{watching.page_of(run)}", flush=True)
    if not watched:
        return 0
    try:
        return watching.Watch(run.id).until_the_end()
    except KeyboardInterrupt:
        print(f"\nno longer watched; the run goes on: prefect flow-run cancel {run.id} ends it", file=sys.stderr)
        return 130


def _names_file(given: str) -> bool:
    """JSON text begins as an object; whatever else is no JSON was meant to be a file."""
    if given == "-" or given.lstrip().startswith(("{", "[", '"')):
        return False
    try:
        json.loads(given)
    except ValueError:
        return True
    return os.path.exists(given)


def _known_overrides(texts: Sequence[str], deployment: str) -> dict[str, Any]:
    """`KEY=VALUE` of `--param`, as Prefect reads them; it says itself what is wrong with them."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if equals and key in kind_of(deployment).names:
            with suppress(ValueError):
                value = json.loads(value)
            found[key] = value
    return found


def is_here(api_url: str | None) -> bool:
    """The server is of this machine, so that its workers see the files that are seen here; so is one that is still to
    be put up."""
    host = (urlsplit(api_url).hostname or "") if api_url else "localhost"
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _base(given: Any, folder: Any) -> Any:
    if given is None:
        return folder
    if not isinstance(given, str):
        raise Refused(
            [Problem("base", f"{shown(given)} is not a string", "the folder that relative paths are against")]
        )
    if (problem := problem_of_nul(given, "base")) is not None:
        raise Refused([problem])
    given = expanded_to_send(given)
    if not needs_worker(given):
        return resolve(given, folder)
    # Only the worker knows which folder it is.
    begins = VARIABLE.match(given) is not None or is_url(given) or os.path.isabs(given)
    return given if begins else f"{text_of(folder).rstrip('/')}/{given}"


def paths_of(section: Any, model: type[BaseModel] = RunFile) -> Iterator[tuple[dict[str, Any], str]]:
    """Each place of a path in `section`: the object, and the key."""
    if not isinstance(section, dict):
        return
    for name, about in model.model_fields.items():
        if not isinstance(section.get(name), str):
            for member in (about.annotation, *get_args(about.annotation)):
                if isinstance(member, type) and issubclass(member, BaseModel):
                    yield from paths_of(section.get(name), member)
        elif is_path_field(about) or (model is RunFile and name == "layers"):
            yield section, name


def _of_worker(sent: Mapping[str, Any]) -> bool:
    """Some path is where a variable of the worker says."""
    texts = [held[key] for held, key in paths_of(sent.get(ROOT))]
    texts += [value for value in sent.values() if isinstance(value, str)]
    return any(map(needs_worker, texts))


def expanded(section: dict[str, Any]) -> dict[str, Any]:
    """A copy of `section` whose paths have no `~` and no variables left but those of the worker (`RML_...`)."""
    copy: dict[str, Any] = json.loads(json.dumps(section))
    for held, key in paths_of(copy):
        held[key] = expanded_to_send(held[key])
    return copy


def within_limit(parameters: dict[str, Any]) -> dict[str, Any]:
    """`parameters`, with the network by reference where Prefect would not take it as a parameter.

    The file's name is its content's, in the cache's folder `networks`, which workers on other machines must see, too.

    Raises:
        Refused: they are too long without the network, too.
    """
    if size_of(parameters) <= MOST_PARAMETER_BYTES:
        return parameters
    section = parameters.get(ROOT)
    if not isinstance(section, dict) or "layers" not in section:
        what = f"have {size_of(parameters):,} bytes of JSON"
        raise Refused([Problem("parameters", what, f"{MOST_PARAMETER_BYTES:,} bytes, which Prefect takes")])
    text = json.dumps(section["layers"])
    smaller = {**parameters, ROOT: {**section, "layers": str(_kept(text))}}
    if (size := size_of(smaller)) > MOST_PARAMETER_BYTES:
        what = f"has {size:,} bytes of JSON without its layers"
        raise Refused([Problem(ROOT, what, f"{MOST_PARAMETER_BYTES:,} bytes, which Prefect takes as parameters")])
    return smaller


def size_of(parameters: Mapping[str, Any]) -> int:
    """Bytes, as Prefect counts them."""
    return len(json.dumps(parameters, separators=(",", ":")))


def _kept(text: str) -> Path:
    folder = cache_folder() / "networks"
    path = folder / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", suffix=".json", delete=False) as part:
            try:
                part.write(text)
                part.close()
                # The worker may be another user, and a temporary file is its maker's alone.
                os.chmod(part.name, 0o644)
                os.replace(part.name, path)
            finally:
                Path(part.name).unlink(missing_ok=True)
    except OSError as error:
        what = f"the network is too long for a parameter, and {folder} cannot be written: {error.strerror}"
        raise Refused([Problem(f"{ROOT}.layers", what, remedy="put it into a file, and name that as layers")]) from None
    return path
