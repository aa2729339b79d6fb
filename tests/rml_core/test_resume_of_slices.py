"""What may change between a run on slices and its continuation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rml_core import resume
from rml_core.config.problem import Refused
from rml_core.run import read


def test_how_slices_are_cut_stays_and_where_they_are_assembled_may_change(
    rml: Callable[..., tuple[int, str, str]], run_file: Callable[..., Path], tmp_path: Path
):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(6, 5, 4)).astype("f4"))
    data: dict[str, Any] = {
        "type": "numpy",
        "input_path": "v.npy",
        "target_path": "v.npy",
        "test_input_path": "v.npy",
        "slicers": [{"name": "a", "sizes": [1, 5, 4]}, {"name": "b", "sizes": [6, 1, 4]}],
    }
    conv = {"class_name": "Conv2D", "config": {"filters": 1, "kernel_size": 1}}
    section = {"layers": [conv], "data": data, "optimizer": {"type": "SGD"}, "loss": {"function": "MSE"}}
    section["checkpoints"] = {"save": "kept"}
    assert rml("run", run_file({"neural_network": section}), "--untracked")[0] == 0

    def position() -> resume.Position | None:
        run = read(str(run_file({"neural_network": section})))
        return resume.find(run, tmp_path / "kept", (), 6 + 5)[0]

    data |= {"hdf5_outfile": "p.h5", "hdf5_precision": "half", "hdf5_output": "argmax", "overlap_blend": "gaussian"}
    found = position()
    assert found is not None
    assert found.epoch == 1

    data["slicers"][1] |= {"strides": [6, 2, 4], "padding": 1}
    with pytest.raises(Refused) as refused:
        position()
    assert str(refused.value).splitlines()[0] == (
        f"neural_network.checkpoints.save: {tmp_path}/kept/model_checkpoint_1.pt was saved by a run with other "
        "settings: data.slicers[1].padding was 0 and is 1; data.slicers[1].strides was null and is [6, 2, 4]"
    )
