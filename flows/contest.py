"""Champion and challenger on the same test data, as they are today."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import evaluation
from flows.phases import execute
from flows.training import Do
from rml_core.check import Checked, check
from rml_core.config.problem import Refused, RunFailed
from rml_core.run import ROOT
from tasks.progress import log

# What says which the test samples are, and how they are read.
OF_TEST = ("test_input_path", "test_target_path", "test_tag", "testing_tag", "test_batch_size", "preload")


@dataclass(frozen=True)
class Scene:
    """Today's run file: `section` is what stands under `neural_network`, `base` its folder, `checked` what is known of
    its data."""

    section: Mapping[str, Any]
    base: Any
    checked: Checked
    scheduler: str | None = None

    def figures(self, checkpoint: Path, who: str, do: Do) -> dict[str, Any]:
        """What `checkpoint`, with its own network and its own treatment of samples, makes of today's test data, by
        today's loss.

        Raises:
            Refused: it cannot be read, or does not fit the data.
            RunFailed: during work; or the test samples are others than the plan has.
        """
        return self._measured(self._fitting(checkpoint), who, do)

    def figures_of_champion(self, champion: Path, challenger: Path, do: Do) -> tuple[dict[str, Any] | None, str]:
        """The champion's figures; or, in the place of figures, why it does not fit today's test data. `challenger`: of
        which there are figures already.

        Raises:
            RunFailed: the champion or the data cannot be read, which says nothing of how good the champion is; or
                during work.
        """
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
        try:
            return self._measured(fitting, "champion", do), ""
        except Refused as refused:
            raise RunFailed(f"champion: {_what(refused)}") from None

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

    def _fitting(self, checkpoint: Path) -> Checked:
        """The run that evaluates `checkpoint`. Raises `Refused`."""
        saved = evaluation.header_of(str(checkpoint), self.base)
        own = json.loads(saved["run"])[ROOT]
        section = {**own, "loss": self.section["loss"], "device": self.section.get("device", "auto"), "outfile": None}
        data = {key: value for key, value in own["data"].items() if key not in OF_TEST}
        today = self.section["data"]
        section["data"] = {**data, **{key: today[key] for key in OF_TEST if key in today}}
        given = evaluation.Given(checkpoint=str(checkpoint))
        return check(evaluation.run_of(given, section, self.base), self.checked.app)

    def _measured(self, fitting: Checked, who: str, do: Do) -> dict[str, Any]:
        test = self.checked.test
        assert test is not None
        if fitting.test is None or fitting.test.inputs != test.inputs:
            raise RunFailed("the test samples changed while the challenger was trained: the next round compares anew")
        log.info(f"the {who} on {fitting.test.count} test samples")
        try:
            return evaluation.figures_of(execute(fitting, _named(do, who), scheduler=self.scheduler))
        except RunFailed as failed:
            raise RunFailed(f"{who}: {failed}") from failed


def _what(refused: Refused) -> str:
    return "; ".join(dict.fromkeys(problem.what for problem in refused.problems))


def _named(do: Do, who: str) -> Do:
    """Phases of an evaluation say whose it is."""
    names = {"build network": f"build {who}", "evaluate epoch 1": f"evaluate {who}"}

    def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return do(names.get(name, f"{name}, {who}"), function, *arguments)

    return call
