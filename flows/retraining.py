"""A round of retraining: train a challenger where something is new, hold it against the champion, keep the better one.

Tracked, `do` makes Prefect task runs of the phases, as in a run; Prefect is not imported here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from flows import contest, judging
from flows.champion import DATA, Champions, Round, Row, put
from flows.data_identity import Changes, Holdings, changes, holdings
from flows.judging import Metric
from flows.phases import Outcome, execute
from flows.training import Do
from rml_core.check import Checked, Collected, check
from rml_core.checkpoints import native
from rml_core.config import remote
from rml_core.config.names import OneOf, wrong
from rml_core.config.paths import is_url, resolve
from rml_core.config.problem import Problem, Refused, RunFailed, listed, shown
from rml_core.config.section import Section
from rml_core.config.trust import Origin
from rml_core.engine.claim import claimed
from rml_core.resume import text_of
from rml_core.run import ROOT, Run, read
from tasks.progress import log

if TYPE_CHECKING:
    from flows.attempt import Attempt

# What of a run file says how it runs and where it writes, but not what is learned.
APART = ("outfile", "debug", "debug_interval", "device", "tensorboard")
APART_DATA = ("test_output_path", "hdf5_outfile", "hdf5_precision", "hdf5_output", "overlap_blend", "preload")
APART_CHECKPOINTS = ("save", "resume", "interval", "keep")


def _folder(given: str) -> str:
    if is_url(given):
        what = f"{shown(given)} is behind a URL, where no champion can be put in the other's place at once"
        raise wrong(what, "a folder of this machine, or one that it shares with others")
    return given


def _metric(given: str) -> str:
    return str(Metric.named(given))


class Retraining(Section):
    """What a retraining does besides its run file."""

    champion: Annotated[str, Field(min_length=1), AfterValidator(_folder)] = Field("champion", examples=["champion"])
    """The folder of the champion, its history and its challengers, made where it is not there."""
    if_unchanged: Annotated[str, OneOf("value", "stop", "train")] = "stop"
    """Where neither data nor run file changed since the last round: `stop` as "nothing new", or `train` all the
    same."""
    warm_start: bool = True
    """Begin with the champion's weights, where there is one; otherwise as the run file says."""
    metric: Annotated[str, AfterValidator(_metric)] | None = Field(None, examples=["accuracy", "recall:cats"])
    """What champion and challenger are compared by on the test data: `accuracy`, `loss`, `mae`, `rmse`, or
    `precision`, `recall`, `f1`, `dice` or `iou` of a class. None: the accuracy, or the loss where there is none."""
    margin: float = Field(0.0, ge=0)
    """The challenger has to be better by more than this."""
    keep: int = Field(3, ge=1)
    """So many of the newest challengers' folders stay, and the champion's."""


@dataclass(frozen=True)
class Planned:
    """A retraining that is known to be right. `mapping`: what stands under `neural_network`."""

    wanted: Retraining
    run: Run
    checked: Checked
    metric: Metric
    champions: Champions
    scheduler: str | None = None

    @property
    def mapping(self) -> dict[str, Any]:
        section: dict[str, Any] = self.run.mapping[ROOT]
        return section


@dataclass
class Ended:
    """How a round ended. `name`: "nothing new", "promoted" or "kept"; `message`: one line. `report`: for people;
    `picture`: a PNG."""

    name: str
    message: str
    row: Row | None = None
    report: str = ""
    picture: bytes = b""
    seen: dict[str, Changes] = field(default_factory=dict)


def planned(
    wanted: Retraining,
    mapping: Mapping[str, Any],
    base: Any,
    app: str | None,
    scheduler: str | None = None,
    origin: Origin | None = None,
) -> Planned:
    """Hold a run file against what retraining needs. `origin`: as `read` takes it.

    Raises:
        Refused: with every problem.
    """
    collected = Collected()
    folder = collected.of(folder_of_champion, wanted.champion, base)
    run = collected.of(read, mapping, base, origin)
    if run is None:
        raise Refused(collected.problems)
    file = run.file
    if file.data.input_path is None:
        what = "is missing: there is nothing to train on"
        collected.problems.append(Problem(f"{ROOT}.data.input_path", what))
    if file.data.validation_split is not None:
        what = "holds other samples out as the data grow, some of which the champion was trained on"
        remedy = "keep test samples apart, and name them with test_input_path"
        collected.problems.append(Problem(f"{ROOT}.data.validation_split", what, remedy=remedy))
    elif file.data.test_input_path is None:
        what = "is missing: champion and challenger are compared on test samples"
        collected.problems.append(Problem(f"{ROOT}.data.test_input_path", what))
    checked = collected.of(check, run, app) if file.data.input_path is not None else None
    metric = None
    if checked is not None and checked.test is not None and file.data.validation_split is None:
        target = checked.test.target
        if target is None:
            what = "the test samples have no targets to compare by"
            collected.problems.append(Problem(f"{ROOT}.data.test_input_path", what, remedy="give them targets"))
        else:
            metric = Metric.named(wanted.metric) if wanted.metric is not None else judging.usual(target)
            problem = judging.problem_of(metric, target, checked.classes)
            collected.problems += [problem] if problem is not None else []
    collected.end()
    assert checked is not None
    assert metric is not None
    assert folder is not None
    return Planned(wanted, run, checked, metric, Champions(folder), scheduler)


def folder_of_champion(given: str, base: Any) -> Path:
    """Absolute; it need not be there. Raises `Refused`."""
    try:
        folder = resolve(given, base if base is not None else Path.cwd())
    except Refused as refused:
        raise Refused(replace(problem, where="champion") for problem in refused.problems) from None
    if not isinstance(folder, Path):
        remedy = "name a folder of this machine"
        raise Refused([Problem("champion", f"{shown(given)} is below {base}, which is a URL", remedy=remedy)])
    return folder.absolute()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"{folder} cannot be made: {(error.strerror or str(error)).lower()}"
        raise Refused([Problem("champion", what, remedy="choose another place, or make this one writable")]) from None


def retrained(
    plan: Planned,
    do: Do,
    run_id: str,
    *,
    attempt: Attempt | None = None,
    trained: Callable[[Outcome], None] = lambda outcome: None,
    promoted: Callable[[Row], None] = lambda row: None,
) -> Ended:
    """Make a round, or go on with the one that `run_id` has begun.

    `trained`: told when training has ended, `promoted`: of a new champion.

    Raises:
        Refused: another retraining works in the champion's folder, and no attempt can wait for it; or the round's run
            file does not fit.
        RunFailed: during work; the champion is then who it was.
    """
    champions, wanted = plan.champions, plan.wanted
    _make(champions.folder)
    waited: list[Refused] = []

    def wait(held: Refused) -> None:
        assert attempt is not None
        waited[:] = [held]
        attempt.wait(held)

    # Whoever is tracked waits for whoever works there: an attempt taken for dead, or a round begun by hand.
    with claimed([("champion", champions.folder)], wait=wait if attempt is not None else None):
        if waited:
            # What was looked at before may have been hours ago.
            plan = replace(plan, checked=check(plan.run, plan.checked.app))
        for row in champions.settle(promoted):
            log.info(f"round {row['round']}, which was stopped before its end, is settled: {row['why']}")
        began = champions.round_of(run_id)
        history = champions.history()
        if began is not None and (done := [row for row in history if row["round"] == began.number]):
            return _ended(plan, done[0], {})
        last = _last_data(champions, history)
        now = holdings((plan.checked.training, plan.checked.test), last)
        seen = changes(last, now) if last is not None else {}
        identity = {"data": now.digest(), "run_file": learned_identity(plan.run)}
        judged_by = {"metric": str(plan.metric), "margin": wanted.margin}
        if began is not None and (other := _other(began, identity)):
            log.info(f"{other} changed since round {began.number} began: a new round begins")
            began = None
        champion = champions.champion
        same = history and _is_same(history[-1], {**identity, **judged_by}) and not _is_lost(champion, history)
        if began is None and same and wanted.if_unchanged == "stop":
            return Ended("nothing new", _nothing_new(history[-1], now), seen=seen)
        current = began if began is not None else champions.begin(run_id, identity["run_file"])
        put(current.path / DATA, now.as_json())
        log.info(f"round {current.number}: {_said(seen, history, {**identity, **judged_by}, champion)}")
        before = time.time()
        outcome = _train(plan, current, champion, do, attempt, goes_on=began is not None)
        trained(outcome)
        challenger = _checkpoint(current)
        scene = contest.Scene(plan.mapping, plan.run.base, plan.checked, plan.scheduler)
        figures = scene.figures(challenger, "challenger", do)
        its, unfit = scene.figures_of_champion(champion, challenger, do) if champion is not None else (None, "")
        ours = plan.metric.of(figures)
        theirs = plan.metric.of(its) if its is not None else None
        verdict = judging.judged(plan.metric, wanted.margin, ours, theirs, unfit)
        saved = native.read(challenger, "")
        row = {
            "round": current.number,
            "promoted": verdict.promoted,
            "why": verdict.why,
            "began": _time(before),
            "ended": _time(time.time()),
            **judged_by,
            "challenger": {
                "checkpoint": str(challenger.relative_to(champions.folder)),
                "run_id": saved["run_id"],
                "epoch": saved["epoch"],
                "value": ours,
                "figures": figures,
            },
            "champion": _champion_row(history, theirs, its) if champion is not None else None,
            "samples": {"training": _count(plan.checked.training), "test": _count(plan.checked.test)},
            "changes": {side: str(each) for side, each in seen.items()},
            **identity,
        }
        current.decide(row)
        champions.settle(promoted)
        ended = _ended(plan, champions.history()[-1], seen)
        put(current.path / "report.md", ended.report)
        put(current.path / "report.png", ended.picture)
        gone = champions.prune(wanted.keep, current)
        if gone:
            log.info(f"removed: what {'round' if len(gone) == 1 else 'rounds'} {listed(map(str, gone))} had left")
        return ended


def _train(
    plan: Planned, current: Round, champion: Path | None, do: Do, attempt: Attempt | None, goes_on: bool
) -> Outcome:
    """The challenger, trained in the round's own folder; an earlier attempt's checkpoint is gone on from."""
    section = round_section(plan.mapping, current)
    seed = section.get("seed", 0)
    # Each round draws anew, and the same again where it is made again.
    section["seed"] = seed + current.number - 1
    if champion is not None and plan.wanted.warm_start:
        if _fits(plan, champion):
            section["checkpoints"]["load"] = str(champion)
            log.info("the challenger begins with the champion's weights")
        else:
            log.info("the champion's weights fit no layer: the challenger begins as the run file says")
    # The data are those that were looked at: where it writes, and what it begins with, is all that changed.
    checked = replace(plan.checked, run=read({ROOT: section}, plan.run.base))
    return execute(checked, do, resuming="auto" if goes_on else None, scheduler=plan.scheduler, attempt=attempt)


def round_section(section: Mapping[str, Any], current: Round) -> dict[str, Any]:
    """The run file of a round: what it writes goes below the round's folder."""
    made: dict[str, Any] = json.loads(json.dumps(section))
    data = made["data"]
    made["outfile"] = str(current.path / "out.txt")
    if data.get("test_output_path") is not None:
        data["test_output_path"] = str(current.path / "predictions")
    if data.get("hdf5_outfile") is not None:
        data["hdf5_outfile"] = str(current.path / str(data["hdf5_outfile"]).rstrip("/").rpartition("/")[2])
    if made.get("tensorboard") is not None:
        made["tensorboard"] = str(current.path / "tensorboard")
    saving = made.get("checkpoints") or {}
    made["checkpoints"] = {"keep": 1, **saving, "save": str(current.path / "checkpoints")}
    made["checkpoints"].pop("resume", None)
    return made


def _fits(plan: Planned, champion: Path) -> bool:
    from rml_core.engine.weights import problem_of

    return problem_of(champion, plan.checked.network) is None


def _checkpoint(current: Round) -> Path:
    """The challenger: the best of its epochs where the run file says `best`, else the last."""
    folder = current.path / "checkpoints"
    best = native.best_path(folder)
    if remote.kind(best) == "file":
        return Path(str(best))
    path, _ = native.newest(folder)
    if path is None:
        raise RunFailed(f"{folder}: the challenger has left no checkpoint")
    return Path(str(path))


def learned_identity(run: Run) -> str:
    """The digest of a run file, but for what does not change what is learned; the network's JSON counts, and not the
    name of its file."""
    section = json.loads(text_of(run))[ROOT]
    kept = {key: value for key, value in section.items() if key not in APART}
    kept["data"] = {key: value for key, value in section["data"].items() if key not in APART_DATA}
    saving = section.get("checkpoints") or {}
    kept["checkpoints"] = {key: value for key, value in saving.items() if key not in APART_CHECKPOINTS}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


def _last_data(champions: Champions, history: list[Row]) -> Holdings | None:
    """What the data held in the last round that came to its end."""
    if not history:
        return None
    try:
        return Holdings.from_json((champions.round_path(history[-1]["round"]) / DATA).read_text())
    except (OSError, ValueError):
        return None


def _other(began: Round, identity: Mapping[str, str]) -> str:
    """What is no longer as it was when the round began; "": all of it is."""
    try:
        data = Holdings.from_json((began.path / DATA).read_text()).digest()
    except (OSError, ValueError):
        data = ""
    then = {"the data": data, "the run file": began.run_file}
    now = {"the data": identity["data"], "the run file": identity["run_file"]}
    return " and ".join(what for what in then if then[what] != now[what])


def _is_same(last: Row, wanted: Mapping[str, Any]) -> bool:
    return all(last.get(key) == value for key, value in wanted.items())


def _is_lost(champion: Path | None, history: list[Row]) -> bool:
    """There was a champion, or should be one, whose file is gone."""
    return "lost" in history[-1] or (champion is None and any(row["promoted"] for row in history))


def _nothing_new(last: Row, now: Holdings) -> str:
    since = f"round {last['round']} ({last['ended']})"
    return f"nothing new since {since}: the same run file, and the same {now.count('')} files"


def _said(seen: Mapping[str, Changes], history: list[Row], wanted: Mapping[str, Any], champion: Path | None) -> str:
    """What is new, in a line."""
    if not history:
        return "the first one"
    found = [f"{side}: {each}" for side, each in seen.items() if each]
    others = {"run_file": "the run file", "metric": "the metric", "margin": "the margin"}
    found += [f"{what} is another" for key, what in others.items() if history[-1].get(key) != wanted[key]]
    if _is_lost(champion, history):
        found.append("a champion's file is gone")
    return "; ".join(found) or "nothing new, and it trains all the same"


def _champion_row(history: list[Row], value: float | None, figures: Mapping[str, Any] | None) -> Row:
    last = next((row for row in reversed(history) if row["promoted"]), None)
    return {"round": last["round"] if last is not None else None, "value": value, "figures": figures}


def _count(survey: Any) -> int:
    return survey.count if survey is not None else 0


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _ended(plan: Planned, row: Row, seen: dict[str, Changes]) -> Ended:
    from flows import comparison

    history = [each for each in plan.champions.history() if each["round"] <= row["round"]]
    name = "promoted" if row["promoted"] else "kept"
    who = "the challenger is champion" if row["promoted"] else "the champion stays"
    message = f"round {row['round']}: {who}: {row['why']}"
    return Ended(name, message, row, comparison.markdown(row, plan.champions), comparison.draw(row, history), seen)
