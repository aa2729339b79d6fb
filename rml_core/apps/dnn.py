"""Supervised training and inference: a network's output against a target a sample."""

from __future__ import annotations

from rml_core.config.problem import Problem

WHERE = "neural_network"


def problems(
    *, trains: bool, evaluates: bool, optimizer: object, loss: object, early_stopping: object
) -> list[Problem]:
    """What the sections lack of each other, told from the run file alone; sections are None where they are missing."""
    found = []
    if not trains and not evaluates:
        found.append(
            Problem(
                f"{WHERE}.data",
                "has neither input_path nor test_input_path: there is nothing to do",
                remedy="give input_path to train, test_input_path to evaluate, or both",
            )
        )
    if trains:
        found += [
            Problem(f"{WHERE}.{name}", "is missing: training needs one")
            for name, section in (("optimizer", optimizer), ("loss", loss))
            if section is None
        ]
    if early_stopping is not None and not (trains and evaluates):
        found.append(
            Problem(
                f"{WHERE}.early_stopping",
                "watches the evaluation of a training run, and this one has none",
                remedy="add data.test_input_path or data.validation_split, or leave early_stopping out",
            )
        )
    return found
