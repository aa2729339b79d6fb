"""The brain of `make demo`: what is cut out of it, and that its run files find the grey matter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

SAMPLES = Path(__file__).parents[2] / "data_samples"
Rml = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the project's, with the run files and the brain's slabs."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(SAMPLES, folder / "data_samples", ignore=shutil.ignore_patterns("digits", "nuclei"))
    subprocess.run([sys.executable, folder / "data_samples" / "make_brain.py"], check=True)
    return folder


def slab(project: Path, name: str) -> np.ndarray:
    return np.load(project / "demo" / "brain" / f"{name}.npy", mmap_mode="r")


def source(kind: str) -> np.ndarray:
    spec = find_spec("nilearn")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    return np.asanyarray(
        nibabel.load(f"{folder}/datasets/data/mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz").dataobj
    )


def test_slabs_of_the_template(project: Path) -> None:
    t1, grey = source("t1"), source("gm")
    for part, first, last in (("train", 26, 134), ("test", 148, 202)):
        brightness, mask = slab(project, f"{part}_t1"), slab(project, f"{part}_grey")
        assert brightness.flags.c_contiguous
        assert brightness.shape == mask.shape == (157, last - first, 149)
        for (z, y, x), value in np.ndenumerate(brightness[::31, ::9, ::37]):
            assert value == t1[24 + 37 * x, last - 1 - 9 * y, 156 - 31 * z]
        np.testing.assert_array_equal(brightness, np.flip(t1[24:173, first:last, :157].transpose(2, 1, 0), (0, 1)))
        np.testing.assert_array_equal(mask, np.flip(grey[24:173, first:last, :157].transpose(2, 1, 0), (0, 1)) > 127)
    # Nothing of the brain is beside them.
    outside = t1.copy()
    outside[24:173, :, :157] = 0
    assert not (outside & (grey > 127)).any()


def test_the_template_mirrors_itself_from_left_to_right() -> None:
    """Why no slab is held out across that axis."""
    np.testing.assert_array_equal(source("gm"), source("gm")[::-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sets", "least"), [("brain_slices", ["coronal", "sagittal"], 0.93), ("brain_bricks", ["bricks"], 0.92)]
)
def test_grey_matter_is_found(project: Path, rml: Rml, name: str, sets: list[str], least: float) -> None:
    run_file = project / "data_samples" / f"{name}.json"
    status, output, errors = rml("run", run_file, "--untracked", "--set", "num_epochs=1")
    assert status == 0, output + errors
    last = json.loads((project / "demo" / f"{name}_metrics.jsonl").read_text().splitlines()[-1])
    assert last["accuracy"] > least
    mask = slab(project, "test_grey") > 0
    with h5py.File(project / "demo" / f"{name}.h5") as file:
        assert sorted(file) == sorted(sets)
        for each in sets:
            found = file[each][0] >= 0.5
            assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > least
    assert (project / "demo" / f"{name}_sections.png").stat().st_size > 10_000
