"""A disk that is full at each kind of write: one line says so, nothing torn stays, and the same command finishes when
there is room. And what load, slice and transform have left is made again where it is damaged or gone."""

from __future__ import annotations

import importlib.util
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.phases import as_it_is, execute
from rml_core.check import check
from rml_core.config.problem import RunFailed
from rml_core.run import read

pytestmark = pytest.mark.slow


def _chaos() -> Any:
    spec = importlib.util.spec_from_file_location("rml_chaos_of_disks", Path(__file__).with_name("chaos.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rml_chaos_of_disks"] = module
    spec.loader.exec_module(module)
    return module


chaos = _chaos()


@dataclass
class Place:
    """A run file in a folder of its own, with a cache of its own."""

    folder: Path
    section: dict[str, Any]

    @property
    def cache(self) -> Path:
        return self.folder / "cache" / "rml" / "prepared"

    def run(self, most: int | None = None) -> None:
        """Execute it; no file can be longer than `most` bytes."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.folder.mkdir(exist_ok=True)
        checked = check(read({"neural_network": self.section}, self.folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits[0] if most is None else most, limits[1]))
            try:
                execute(checked, as_it_is)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def torn(self) -> list[str]:
        """What nobody has finished; `.latest_run.json` says whose checkpoints lie there."""
        return [name for name in self.files() if Path(name).name.startswith(".") and "latest_run" not in name]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Place]:
    """Makes a place for a run of images, or of a volume."""
    home = tmp_path_factory.mktemp("disks")
    data = chaos.make_data(home / "data")

    def place(name: str, volume: bool = False, **changes: Any) -> Place:
        section = chaos.section(data, home / name, volume)
        section["num_epochs"] = 2
        return Place(home / name, {**section, **changes})

    return place


@pytest.fixture(scope="module")
def whole(make: Callable[..., Place]) -> dict[bool, Place]:
    """Undisturbed runs."""
    places = {volume: make(f"whole{volume}", volume) for volume in (False, True)}
    for place in places.values():
        place.run()
    return places


@pytest.mark.parametrize(
    ("volume", "most", "phase", "file"),
    [
        (False, 900, "load training", "prepared"),
        (False, 250_000, "load training", "prepared"),
        (False, 60_000, "checkpoint epoch 1", "model_checkpoint_1.pt"),
        (True, 1_000, "train epoch 1", "out_train.txt"),
        (True, 20_000, "", "prediction.h5"),
    ],
)
def test_a_full_disk(
    make: Callable[..., Place],
    whole: dict[bool, Place],
    volume: bool,
    most: int,
    phase: str,
    file: str,
):
    place = make(f"full{volume}{most}", volume)
    if file != "prepared":
        shutil.copytree(whole[volume].folder / "cache", place.folder / "cache")
    with pytest.raises(RunFailed) as failed:
        place.run(most)
    (said,) = str(failed.value).splitlines()
    assert said.startswith(phase)
    assert file in said
    assert "File too large" in said
    assert place.torn() == []
    place.run()
    assert place.torn() == []
    reference = whole[volume]
    saved = "checkpoints/model_checkpoint_2.pt"
    states = [torch.load(each.folder / saved, weights_only=True) for each in (place, reference)]
    for key in ("network", "optimizer", "random"):
        assert chaos.same(states[0][key], states[1][key])
    assert {name for name in place.files() if "cache" not in name} == {
        name for name in reference.files() if "cache" not in name
    }


@pytest.mark.parametrize("damage", ["cut", "changed", "removed", "emptied"])
def test_prepared_samples_that_are_damaged_or_gone_are_made_again(
    make: Callable[..., Place], whole: dict[bool, Place], damage: str
):
    place = make(f"damaged {damage}")
    shutil.copytree(whole[False].folder / "cache", place.folder / "cache")
    files = sorted((path for path in place.cache.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    assert files
    for path in files[-2:]:
        content = path.read_bytes()
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "changed":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes(255 - byte for byte in content[middle:]))
        elif damage == "emptied":
            path.write_bytes(b"")
        else:
            path.unlink()
    place.run()
    saved = "checkpoints/model_checkpoint_2.pt"
    states = [torch.load(each.folder / saved, weights_only=True) for each in (place, whole[False])]
    assert chaos.same(states[0]["network"], states[1]["network"])
