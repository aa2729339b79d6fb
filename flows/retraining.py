"""A round of retraining: train a challenger where something is new, hold it against the champion, keep the better one.

Tracked, `do` makes Prefect task runs of the phases, as in a run; Prefect is not imported here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from flows import challenger, contest, judging, novelty
from flows.champion import DATA, Champions, Round, Row, put
from flows.data_identity import Holdings, changes, holdings
from flows.judging import Metric
from flows.phases import Outcome
from flows.training import Do
from rml_core.check import Checked, Collected, check, check_without_data
from rml_core.checkpoints import native
from rml_core.config.names import OneOf, wrong
from rml_core.config.paths import is_url, resolve
from rml_core.config.problem import Problem, Refused, listed, shown
from rml_core.config.section import Section
from rml_core.config.trust import Origin
from rml_core.engine.claim import claimed
from rml_core.reading import read_with_data
from rml_core.run import ROOT, Run, read
from tasks.progress import log

if TYPE_CHECKING:
    from flows.attempt import Attempt


def _folder(given: str) -> str:
    if "\0" in given:
        raise wrong(f"{shown(given)} has a NUL character", "the name of a folder")
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
    folder, run, collected = _begun(read_with_data, wanted, mapping, base, origin)
    file = run.file
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


def planned_without_data(
    wanted: Retraining, mapping: Mapping[str, Any], base: Any, app: str | None, origin: Origin | None = None
) -> Path:
    """As `planned`, where the data files are not seen from here; gives the champion's folder. Raises `Refused`."""
    folder, run, collected = _begun(read, wanted, mapping, base, origin)
    collected.of(check_without_data, run, app)
    collected.end()
    assert folder is not None
    return folder


def _begun(
    reading: Callable[..., Run], wanted: Retraining, mapping: Mapping[str, Any], base: Any, origin: Origin | None
) -> tuple[Path | None, Run, Collected]:
    """The champion's folder, the run file, and what is wrong with them whatever the data are. Raises `Refused` where
    there is no run file to go on with."""
    collected = Collected()
    folder = collected.of(folder_of_champion, wanted.champion, base)
    run = collected.of(reading, mapping, base, origin)
    if run is None:
        raise Refused(collected.problems)
    data = run.file.data
    if data.input_path is None:
        what = "is missing: there is nothing to train on"
        collected.problems.append(Problem(f"{ROOT}.data.input_path", what))
    if data.validation_split is not None:
        what = "holds other samples out as the data grow, some of which the champion was trained on"
        remedy = "keep test samples apart, and name them with test_input_path"
        collected.problems.append(Problem(f"{ROOT}.data.validation_split", what, remedy=remedy))
    elif data.test_input_path is None:
        what = "is missing: champion and challenger are compared on test samples"
        collected.problems.append(Problem(f"{ROOT}.data.test_input_path", what))
    return folder, run, collected


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
        RunFailed: during work, or a signal has stopped it; the champion is then who it was.
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
        if history:
            _show(plan, history[-1])
        if began is not None and (done := [row for row in history if row["round"] == began.number]):
            _prune(plan, began)
            return _ended(plan, done[0])
        last = novelty.last_data(champions, history)
        now = holdings((plan.checked.training, plan.checked.test), last)
        run_file = novelty.learned_identity(plan.run)
        judged_by = {"metric": str(plan.metric), "margin": wanted.margin}
        identity = {"data": now.digest(), "run_file": run_file, **judged_by}
        if began is not None and (other := novelty.other(began, now, run_file)):
            log.info(f"{other} changed since round {began.number} began: a new round begins")
            began = None
        champion = champions.champion
        same = history and novelty.is_same(history[-1], identity) and not novelty.is_lost(champion, history)
        if began is None and same and wanted.if_unchanged == "stop":
            _prune(plan, None)
            return Ended("nothing new", novelty.nothing_new(history[-1], now))
        current = began if began is not None else champions.begin(run_id, run_file)
        put(current.path / DATA, now.as_json())
        seen = changes(last, now) if last is not None else {}
        log.info(f"round {current.number}: {novelty.said(seen, history, identity, champion)}")
        before = time.time()
        trained(challenger.train(plan, current, champion, do, attempt, goes_on=began is not None))
        row = _decided(plan, current, champion, now, last, history, do)
        current.decide({**row, "began": _time(before), "ended": _time(time.time())})
        champions.settle(promoted)
        settled = champions.history()[-1]
        _show(plan, settled)
        _prune(plan, current)
        return _ended(plan, settled)


def _decided(
    plan: Planned, current: Round, champion: Path | None, trained: Holdings, last: Holdings | None,
    history: list[Row], do: Do,
) -> Row:  # fmt: skip
    """The row of the history that the round comes to. Its data are those it was trained on, and the test data that
    were there when both were evaluated: what is not among them is new to the next round."""
    ours = challenger.checkpoint_of(current)
    scene = contest.Scene(plan.mapping, plan.run.base, plan.checked.app, plan.scheduler)
    found = contest.compared(scene, ours, champion, trained, do)
    data = Holdings({**trained.of("training").sides, **found.held.sides})
    put(current.path / DATA, data.as_json())
    value = plan.metric.of(found.challenger)
    its, unfit = None, found.unfit
    if found.champion is not None and plan.metric.is_in(found.champion):
        its = plan.metric.of(found.champion)
    elif found.champion is not None:
        unfit = f"it has learned no class {shown(plan.metric.of_class)}, of which the metric {plan.metric} is"
    verdict = judging.judged(plan.metric, plan.wanted.margin, value, its, unfit)
    saved = native.read(ours, "")
    return {
        "round": current.number,
        "promoted": verdict.promoted,
        "why": verdict.why,
        "metric": str(plan.metric),
        "margin": plan.wanted.margin,
        "challenger": {
            "checkpoint": str(ours.relative_to(plan.champions.folder)),
            "run_id": saved["run_id"],
            "epoch": saved["epoch"],
            "value": value,
            "figures": found.challenger,
        },
        "champion": _champion_row(history, its, found.champion) if champion is not None else None,
        "samples": {"training": _count(plan.checked.training), "test": found.test.count},
        "changes": {side: str(each) for side, each in changes(last, data).items()} if last is not None else {},
        "data": data.digest(),
        "run_file": current.run_file,
    }


def _show(plan: Planned, row: Row) -> None:
    """The report of a round beside what the round has left, unless it is there: who has made the round may have been
    killed before."""
    folder = plan.champions.round_path(row["round"])
    missing = [name for name in ("report.md", "report.png") if not (folder / name).exists()]
    if folder.exists() and missing:
        ended = _ended(plan, row)
        put(folder / "report.md", ended.report)
        put(folder / "report.png", ended.picture)


def _prune(plan: Planned, current: Round | None) -> None:
    gone = plan.champions.prune(plan.wanted.keep, current)
    if gone:
        log.info(f"removed: what {'round' if len(gone) == 1 else 'rounds'} {listed(map(str, gone))} had left")


def _champion_row(history: list[Row], value: float | None, figures: Mapping[str, Any] | None) -> Row:
    last = next((row for row in reversed(history) if row["promoted"]), None)
    return {"round": last["round"] if last is not None else None, "value": value, "figures": figures}


def _count(survey: Any) -> int:
    return survey.count if survey is not None else 0


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _ended(plan: Planned, row: Row) -> Ended:
    from flows import comparison

    history = [each for each in plan.champions.history() if each["round"] <= row["round"]]
    name = "promoted" if row["promoted"] else "kept"
    who = "the challenger is champion" if row["promoted"] else "the champion stays"
    message = f"round {row['round']}: {who}: {row['why']}"
    return Ended(name, message, row, comparison.markdown(row, plan.champions), comparison.draw(row, history))
