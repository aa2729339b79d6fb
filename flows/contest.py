"""Champion and challenger on the same test data, as they are today."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import evaluation
from flows.data_identity import Holdings, holdings
from flows.evaluation import Stopped
from flows.phases import execute
from flows.training import Do
from rml_core.check import Checked, check
from rml_core.config.problem import Refused, RunFailed
from rml_core.data.masks import UnknownValue
from rml_core.run import ROOT
from tasks.progress import log

if TYPE_CHECKING:
    from rml_core.data.survey import Survey

# What says which the test samples are, and how they are read.
OF_TEST = ("test_input_path", "test_target_path", "test_tag", "testing_tag", "test_batch_size", "preload")


# So often both are evaluated while the test data change.
TIMES = 3


@dataclass(frozen=True)
class Compared:
    """Figures of both on the same test samples, `test`, whose files held `held` all the time. `unfit`: why there are
    none of a champion."""

    challenger: dict[str, Any]
    champion: dict[str, Any] | None
    unfit: str
    test: Survey
    held: Holdings


def compared(scene: Scene, challenger: Path, champion: Path | None, before: Holdings, do: Do) -> Compared:
    """What both make of the test data that are there now. Data that change meanwhile are looked at again, and both are
    evaluated again. `before`: what is known of the files' content.

    Raises:
        RunFailed: during work; the test data do not come to rest; the challenger does not fit them, or the champion
            cannot be read.
    """
    fitting, test = scene.of_challenger(challenger)
    held = holdings([test], before)
    for _ in range(TIMES):
        found: Compared | None = None
        failed: RunFailed | None = None
        try:
            figures = scene.measured(fitting, "challenger", do)
            its, unfit = scene.figures_of_champion(champion, challenger, test, do)
            found = Compared(figures, its, unfit, test, held)
        except Stopped:
            raise
        except RunFailed as error:
            # What changes while it is read may fail for that alone.
            failed = error
        fitting, again = scene.of_challenger(challenger)
        now = holdings([again], held)
        if now.digest() == held.digest() and _truth(again) == _truth(test):
            if found is not None:
                return found
            assert failed is not None
            raise failed
        log.info("the test data changed while challenger and champion were evaluated: both are evaluated again")
        test, held = again, now
    what = f"the test data changed in each of {TIMES} evaluations of challenger and champion"
    raise RunFailed(f"{what}: put files there at once, by renaming; the champion is who it was")


def _truth(test: Survey) -> tuple[Any, ...]:
    """Which samples there are, and what is true of them, whatever numbers a network has for the classes."""
    names = test.classes or ()
    labels = tuple(names[label] for label in test.labels) if test.labels is not None else None
    return test.inputs, test.targets, labels, test.target.kind if test.target is not None else None


@dataclass(frozen=True)
class Scene:
    """Today's run file: `section` is what stands under `neural_network`, `base` its folder."""

    section: Mapping[str, Any]
    base: Any
    app: str
    scheduler: str | None = None

    def of_challenger(self, challenger: Path) -> tuple[Checked, Survey]:
        """The run that evaluates it, and the test samples as they are now. Raises `RunFailed`."""
        try:
            fitting = self._fitting(challenger)
        except Refused as refused:
            raise RunFailed(f"the challenger cannot be evaluated on today's test data: {_what(refused)}") from None
        assert fitting.test is not None
        return fitting, fitting.test

    def figures_of_champion(
        self, champion: Path | None, challenger: Path, test: Survey, do: Do
    ) -> tuple[dict[str, Any] | None, str]:
        """The champion's figures, where there is one; or, in the place of figures, why it does not fit the test data.
        `challenger`: of which there are figures already, on `test`.

        Raises:
            RunFailed: the champion or the data cannot be read, which says nothing of how good the champion is; or
                during work.
        """
        if champion is None:
            return None, ""
        try:
            evaluation.header_of(str(champion), self.base)
        except Refused as refused:
            remedy = "make it readable, or move it away: the next round then has no champion to beat"
            raise RunFailed(f"the champion cannot be read: {_what(refused)}; {remedy}") from None
        fitting: Checked | None
        try:
            fitting = self._fitting(champion)
        except Refused as first:
            fitting, unfit = self._again(champion, challenger, _what(first))
            if fitting is None:
                return None, unfit
        assert fitting.test is not None
        if (other := _truth(fitting.test)) != _truth(test):
            self._same_again(champion, other)
            return None, "its run file takes other samples, or other targets, from them than today's"
        try:
            return self.measured(fitting, "champion", do), ""
        except RunFailed as failed:
            # Of classes by folders that is known before; what masks hold, only when they are read.
            if isinstance(failed.__cause__, UnknownValue):
                return None, str(failed.__cause__)
            raise

    def _again(self, champion: Path, challenger: Path, first: str) -> tuple[Checked | None, str]:
        """A disk that was away for a moment makes no champion unfit: the challenger has to fit the data, still, and
        the champion to be refused for the same reason again."""
        try:
            self._fitting(challenger)
        except Refused as refused:
            raise RunFailed(f"the test data cannot be read any more: {_what(refused)}") from None
        try:
            return self._fitting(champion), ""
        except Refused as second:
            if _what(second) != first:
                raise RunFailed(f"champion: {first}; and then: {_what(second)}") from None
            return None, first

    def _same_again(self, champion: Path, truth: tuple[Any, ...]) -> None:
        """A file that was there for a moment makes no champion unfit either. Raises `RunFailed`."""
        try:
            again = self._fitting(champion).test
        except Refused as refused:
            raise RunFailed(f"champion: {_what(refused)}") from None
        if again is None or _truth(again) != truth:
            raise RunFailed("champion: the test samples changed while they were looked at")

    def _fitting(self, checkpoint: Path) -> Checked:
        """The run that evaluates `checkpoint`. Raises `Refused`."""
        saved = evaluation.header_of(str(checkpoint), self.base)
        own = json.loads(saved["run"])[ROOT]
        section = {**own, "loss": self.section["loss"], "device": self.section.get("device", "auto"), "outfile": None}
        data = {key: value for key, value in own["data"].items() if key not in OF_TEST}
        today = self.section["data"]
        section["data"] = {**data, **{key: today[key] for key in OF_TEST if key in today}}
        given = evaluation.Given(checkpoint=str(checkpoint))
        return check(evaluation.run_of(given, section, self.base), self.app)

    def measured(self, fitting: Checked, who: str, do: Do) -> dict[str, Any]:
        """Raises `RunFailed`; `Stopped` where a signal ends it."""
        assert fitting.test is not None
        log.info(f"the {who} on {fitting.test.count} test samples")
        try:
            outcome = execute(fitting, _named(do, who), scheduler=self.scheduler)
        except RunFailed as failed:
            raise RunFailed(f"{who}: {failed}") from failed
        except Refused as refused:
            raise RunFailed(f"{who}: {_what(refused)}") from None
        if outcome.interrupted:
            raise Stopped(f"{who}: the evaluation was stopped: the champion is who it was")
        return evaluation.figures_of(outcome)


def _what(refused: Refused) -> str:
    return "; ".join(dict.fromkeys(problem.what for problem in refused.problems))


def _named(do: Do, who: str) -> Do:
    """Phases of an evaluation say whose it is."""
    names = {"build network": f"build {who}", "evaluate epoch 1": f"evaluate {who}"}

    def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return do(names.get(name, f"{name}, {who}"), function, *arguments)

    return call
