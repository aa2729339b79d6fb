"""Supervised training and inference: a network's output against a target a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rml_core.config.problem import Problem

if TYPE_CHECKING:
    from rml_core.run import RunFile


def problems(file: RunFile) -> list[Problem]:
    """What the sections lack of each other, told from the run file alone."""
    found = []
    data = file.data
    where = "neural_network"
    if data.input_path is None and data.test_input_path is None:
        found.append(
            Problem(
                f"{where}.data",
                "has neither input_path nor test_input_path: there is nothing to do",
                remedy="give input_path to train, test_input_path to evaluate, or both",
            )
        )
    if data.input_path is not None:
        if file.optimizer is None:
            found.append(Problem(f"{where}.optimizer", "is missing: training needs one"))
        if file.loss is None:
            found.append(Problem(f"{where}.loss", "is missing: training needs one"))
    elif file.checkpoints is not None and file.checkpoints.save is not None and file.checkpoints.load is None:
        pass
    if file.early_stopping is not None and (data.input_path is None or data.test_input_path is None):
        found.append(
            Problem(
                f"{where}.early_stopping",
                "watches the evaluation of a training run",
                remedy="give data.input_path and data.test_input_path, or leave early_stopping out",
            )
        )
    return found
