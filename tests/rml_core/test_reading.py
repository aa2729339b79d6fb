"""What is wrong with a run file and with its data is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rml_core.config.problem import Refused
from rml_core.reading import read_with_data
from rml_core.run import read

Section = dict[str, Any]


@pytest.fixture
def section(classification: dict[str, Any]) -> Section:
    found: Section = classification["neural_network"]
    found["loss"] = {"function": "MSE", "reduction": "sum"}
    return found


UNKNOWN = "neural_network.loss.reduction: unknown key\n    allowed: "


def refused(section: Section, reading: Any = read_with_data, **options: Any) -> list[str]:
    """The problems."""
    with pytest.raises(Refused) as refusal:
        reading({"neural_network": section}, **options)
    return [str(problem) for problem in refusal.value.problems]


def test_files_are_looked_at_though_another_section_is_wrong(section: Section, tmp_path: Path):
    assert len(refused(section)) == 1
    (tmp_path / "there").mkdir()
    section["data"] |= {"input_path": str(tmp_path / "a"), "test_input_path": str(tmp_path / "b")}
    unknown, *others = refused(section)
    assert unknown.startswith(UNKNOWN)
    assert others == [
        f"neural_network.data.{key}: {tmp_path / name} does not exist\n"
        f"    allowed: a file or a folder\n    {tmp_path} has there"
        for key, name in (("input_path", "a"), ("test_input_path", "b"))
    ]
    assert refused(section, read) == [unknown]


def test_samples_are_measured_where_the_network_is_right(section: Section, tmp_path: Path):
    for kind, width in (("a", 4), ("b", 6)):
        (tmp_path / "train" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "train" / kind / "0.png"), np.zeros((4, width, 3), np.uint8))
    section["data"] |= {"input_path": str(tmp_path / "train"), "batch_size": 2, "transforms": []}
    unknown, differ = refused(section)
    assert unknown.startswith(UNKNOWN)
    assert differ.startswith("neural_network.data.input_path: sizes differ: ")
    section["layers"] = [{"class_name": "Dence"}]
    assert [problem.split(":")[0] for problem in refused(section)] == [
        "neural_network.loss.reduction",
        "neural_network.layers[0].class_name",
    ]
    section["data"]["input_path"] = str(tmp_path / "c")
    assert refused(section)[-1].startswith(f"neural_network.data.input_path: {tmp_path / 'c'} does not exist")


def test_no_files_are_looked_at_where_the_section_itself_is_wrong(section: Section, tmp_path: Path):
    section["data"] |= {"input_path": str(tmp_path / "a"), "batch_size": 0}
    assert [problem.split(":")[0] for problem in refused(section)] == [
        "neural_network.data.batch_size",
        "neural_network.loss.reduction",
    ]


def test_a_run_file_that_is_right_is_left_to_the_check(section: Section, tmp_path: Path):
    section["loss"] = {"function": "MSE"}
    section["data"]["input_path"] = str(tmp_path / "a")
    run = read_with_data({"neural_network": section}, tmp_path)
    assert run == read({"neural_network": section}, tmp_path)


def test_what_may_not_be_read_is_not_looked_at(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether a file is there is nobody's business who may not read it."""
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("RML_ROOTS", str(tmp_path / "mine"))
    (tmp_path / "network.json").write_text("no network")
    section["layers"] = str(tmp_path / "network.json")
    section["data"] = {"input_type": "images", "target_type": "labels", "input_path": str(tmp_path / "a")}
    outside = "is outside of what may be read and written here"
    assert [problem.splitlines()[0] for problem in refused(section, base=tmp_path / "mine")] == [
        f'neural_network.layers: "{tmp_path / "network.json"}" {outside}',
        f'neural_network.data.input_path: "{tmp_path / "a"}" {outside}',
        "neural_network.loss.reduction: unknown key",
    ]
    section["data"]["input_path"] = "b"
    assert [problem.splitlines()[0] for problem in refused(section, base=tmp_path / "mine")] == [
        f'neural_network.layers: "{tmp_path / "network.json"}" {outside}',
        "neural_network.loss.reduction: unknown key",
        f"neural_network.data.input_path: {tmp_path / 'mine' / 'b'} does not exist",
    ]
