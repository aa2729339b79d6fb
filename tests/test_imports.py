"""What validating and planning a run file must not load: it would cost seconds before the first message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "prefect", "dask", "distributed", "cv2", "matplotlib"}
# What ranks import: torch is theirs.
WITH_TORCH = {"engine", "apps"}

CORE = Path(__file__).parents[1] / "rml_core"
SECTIONS = sorted(
    f"rml_core.{folder.name}"
    for folder in CORE.iterdir()
    if (folder / "__init__.py").exists() and folder.name not in WITH_TORCH
)


@pytest.mark.parametrize("module", ["rml_core.run", "rml_core.check", "flows.plan", "flows.cli", *SECTIONS])
def test_imported_in_a_fresh_interpreter_it_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def loaded_by(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps([name for name in sys.modules if '.' not in name]))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return set(json.loads(finished.stdout))
