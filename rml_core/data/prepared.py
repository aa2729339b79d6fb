"""What stays on disk between the files and training: prepared once, found again by the identity of what made it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rml_core.config import roots
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.config.target import Target
from rml_core.data import prepared_volumes
from rml_core.data.building import built_beside
from rml_core.data.files import NAMED, Form, Item, Role
from rml_core.data.handles import closing
from rml_core.data.nans import counted
from rml_core.data.prepared_folders import MANIFEST, Gone, in_use
from rml_core.data.prepared_volumes import Side, identity
from rml_core.data.section import Data
from rml_core.data.store import Alike, Index, NotAlike, Put, Unlike
from rml_core.data.survey import Survey
from rml_core.data.volumes import Volume, opened_volume
from rml_core.slicers.grid import SliceGrid
from rml_core.transforms.chain import Chain

FORMAT = 3

Place = Alike | Unlike
VolumeSide = Literal["inputs", "targets"]
Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Prepared:
    """A handle on prepared samples; what is long stays in the folder's manifest.

    `mask_values`: each raw value of the masks with a file that has it. `preloaded`: the decoded samples are in the
    folder; otherwise they are read from their files when due. The forms say how. `grids`: as those of a `Survey`.
    """

    folder: str
    data: Data
    role: Role
    count: int
    sample_shape: tuple[int | None, ...]
    target: Target | None
    classes: tuple[str, ...] | None
    mask_values: tuple[tuple[int, str], ...]
    batch_size: int
    input_form: Form
    target_form: Form | None = None
    grids: tuple[SliceGrid, ...] = ()

    @property
    def preloaded(self) -> bool:
        return self.data.preload

    @property
    def batches(self) -> int:
        counts = [grid.count for grid in self.grids] or [self.count]
        return sum(-(-count // self.batch_size) for count in counts)

    @property
    def inputs(self) -> tuple[Item, ...]:
        """Where the inputs lie."""
        return tuple(Item(*each) for each in _manifest(self.folder)["inputs"])

    @property
    def targets(self) -> tuple[Item, ...] | None:
        """Where the targets lie, where they are files."""
        targets = _manifest(self.folder)["targets"]
        return None if targets is None else tuple(Item(*each) for each in targets)

    @property
    def labels(self) -> tuple[int, ...] | None:
        labels = _manifest(self.folder)["labels"]
        return None if labels is None else tuple(labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The samples' paths below the input folder: the names of their predictions."""
        return tuple(_manifest(self.folder)["names"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of the values of volumes, where they were read."""
        manifest = _manifest(self.folder)
        items = {"inputs": manifest["inputs"], "targets": manifest["targets"] or []}
        return tuple(counted(Item(*items[side][0]), count) for side, count in manifest.get("nan", {}).items() if count)

    def volume(self, side: VolumeSide, cache_bytes: int) -> Volume:
        """The array that slices of `side` are cut from, opened: the decoded one where there is one, else where it
        lies. `cache_bytes`: how much of decoded chunks is kept. Raises `RunFailed`."""
        form = self.input_form if side == "inputs" else self.target_form
        items = self.inputs if side == "inputs" else self.targets
        assert form is not None
        assert items is not None
        if side in _manifest(self.folder)["in_place"]:
            return opened_volume(items[0], form, cache_bytes)
        roots.kept(self.folder)
        return opened_volume(Item(str(Path(self.folder, f"{side}.npy"))), Form("numpy", mask=form.mask), 0)

    def is_whole(self) -> bool:
        """Whether every file is there and was not changed since it was written."""
        return is_whole(Path(self.folder))


def key_of(survey: Survey, data: Data) -> str:
    """The identity of prepared samples: the files (path, size, time of change) and all that decides what is stored.
    Raises `RunFailed` where a file has vanished."""
    made_by = {
        "format": FORMAT,
        "role": survey.role,
        "names": survey.names,
        "inputs": survey.inputs,
        "targets": survey.targets,
        "files": _identities(survey.input_form, survey.inputs),
        "target_files": _identities(survey.target_form, survey.targets or ()),
        "labels": survey.labels,
        "classes": survey.classes,
        "forms": [asdict(form) for form in (survey.input_form, survey.target_form) if form is not None],
        "stored": data.preload
        and ("volumes" if survey.grids else [_leading(chain) for chain in (data.input_chain, data.target_chain)]),
    }
    return hashlib.blake2b(json.dumps(made_by).encode(), digest_size=12).hexdigest()


def folder_of(survey: Survey, data: Data, under: Path) -> Path:
    """Where `prepare` leaves its samples."""
    return under.absolute() / f"{survey.role}-{key_of(survey, data)}"


def prepare(
    survey: Survey,
    data: Data,
    under: Path,
    map: Map = map,  # noqa: A002
    held: ExitStack | None = None,
) -> Prepared:
    """Prepare the samples in a folder of their own below `under`, or find them there.

    With `preload`, samples are decoded, go through the leading deterministic transforms, and are stored in the decoded
    type. Masks are read in any case, for their distinct values. `map(function, jobs)` gives the results in order; it
    may run the function (a module's, picklable) anywhere that sees the same files. The folder appears under its name
    only when whole; nobody who cleans up removes it until `held` lets go of it. Raises `RunFailed` naming the files
    that cannot be decoded, or when the disk is full.
    """
    folder = folder_of(survey, data, under)
    with ExitStack() as here:
        while True:
            made = nullcontext() if is_whole(folder) else _made(survey, data, folder, map)
            # One that was there may be gone by now: somebody has cleaned up.
            with made, suppress(Gone):
                (held or here).enter_context(in_use(folder))
                break
        manifest = _manifest(str(folder))
    values = tuple((value, path) for value, path in manifest["mask_values"])
    return Prepared(
        str(folder), data, survey.role, survey.count, survey.sample_shape, survey.target, survey.classes, values,
        survey.batch_size, survey.input_form, survey.target_form, survey.grids,
    )  # fmt: skip


@contextmanager
def _made(survey: Survey, data: Data, folder: Path, map: Map) -> Iterator[None]:  # noqa: A002
    """Makes `folder`, which nobody removes as long as the context lasts."""
    try:
        with built_beside(folder) as building:
            _build(survey, data, building, map)
            with in_use(building):
                _put_in_place(building, folder)
                _manifest.cache_clear()
                yield
    except OSError as error:
        raise RunFailed(
            f"samples cannot be prepared in {folder.parent}: {error.strerror or error}; "
            "make room there, or set XDG_CACHE_HOME to another folder"
        ) from error


@dataclass(frozen=True)
class Job:
    """Samples `start` onwards. Places are None where nothing is stored; `targets` is None where they are no files."""

    start: int
    inputs: tuple[Item, ...]
    targets: tuple[Item, ...] | None
    input_form: Form
    target_form: Form | None
    data: Data
    input_place: Place | None
    target_place: Place | None


@dataclass(frozen=True)
class Done:
    failures: list[str]
    mask_values: dict[int, str]
    input_index: Index
    target_index: Index
    alike: bool = True


def run_job(job: Job) -> Done:
    """Decode, apply the leading transforms, store, sample by sample; what cannot be decoded is collected, not
    raised."""
    import cv2

    cv2.setNumThreads(0)
    failures: list[str] = []
    values: dict[int, str] = {}
    input_index: Index = []
    target_index: Index = []
    input_chain, target_chain = job.data.input_chain, job.data.target_chain

    def put(item: Item, into: Put) -> None:
        try:
            into(input_chain.lead(job.input_form.read(item)))
        except RunFailed as error:
            failures.append(str(error))

    def put_target(item: Item, form: Form, into: Put | None) -> None:
        try:
            array = form.read(item)
        except RunFailed as error:
            failures.append(str(error))
            return
        if form.mask:
            for value in _distinct(array):
                values.setdefault(value, str(item))
        if into is not None:
            into(target_chain.lead(array))

    try:
        with closing():
            if job.input_place is not None:
                with job.input_place.writing(job.start, input_index) as into:
                    for item in job.inputs:
                        put(item, into)
            if job.target_form is not None:
                with _writing(job.target_place, job.start, target_index) as into_targets:
                    for item in job.targets or ():
                        put_target(item, job.target_form, into_targets)
    except NotAlike:
        return Done([], {}, [], [], alike=False)
    return Done(failures, values, input_index, target_index)


def _writing(place: Place | None, start: int, index: Index) -> AbstractContextManager[Put | None]:
    return nullcontext() if place is None else place.writing(start, index)


def _distinct(mask: np.ndarray) -> list[int]:
    if mask.dtype in (np.uint8, np.uint16):
        return np.flatnonzero(np.bincount(mask.ravel())).tolist()
    return np.unique(mask).tolist()


def _build(survey: Survey, data: Data, folder: Path, map: Map) -> None:  # noqa: A002
    found = _read_volumes(survey, data, folder, map) if survey.grids else _read_samples(survey, data, folder, map)
    for file in folder.iterdir():
        with open(file, "rb") as stored:
            os.fsync(stored.fileno())
    manifest = {
        "inputs": survey.inputs,
        "targets": survey.targets,
        "names": survey.names,
        "labels": survey.labels,
        **found,
        "stored": {file.name: _as_stored(file) for file in sorted(folder.iterdir())},
    }
    with open(folder / MANIFEST, "w") as text:
        json.dump(manifest, text)
        text.flush()
        os.fsync(text.fileno())


def _read_volumes(survey: Survey, data: Data, folder: Path, map: Map) -> dict[str, Any]:  # noqa: A002
    sides = [Side("inputs", survey.inputs[0], survey.input_form)]
    if survey.targets and survey.target_form is not None:
        sides.append(Side("targets", survey.targets[0], survey.target_form))
    return prepared_volumes.build(sides, data.preload, folder, map)


def _read_samples(survey: Survey, data: Data, folder: Path, map: Map) -> dict[str, Any]:  # noqa: A002
    if data.preload:
        results = _store(survey, data, folder, map)
    elif survey.target_form is not None and survey.target_form.mask:
        results = _run(survey, data, [], map)
    else:
        results = []
    values: dict[int, str] = {}
    for done in results:
        for value, path in done.mask_values.items():
            values.setdefault(value, path)
    return {"mask_values": sorted(values.items())}


def _store(survey: Survey, data: Data, folder: Path, map: Map) -> list[Done]:  # noqa: A002
    """Decode and store all samples: as one array where they turn out like the first."""
    names = ("inputs", "targets") if survey.targets else ("inputs",)
    try:
        with closing():
            first = [data.input_chain.lead(survey.input_form.read(survey.inputs[0]))]
            if survey.targets and survey.target_form is not None:
                first.append(data.target_chain.lead(survey.target_form.read(survey.targets[0])))
    except RunFailed:
        alike = []
    else:
        alike = [Alike.create(folder, name, survey.count, array) for name, array in zip(names, first, strict=True)]
        results = _run(survey, data, alike, map)
        if all(done.alike for done in results):
            return results
    for place in alike:
        os.unlink(place.path)
    unlike = [Unlike.create(folder, name) for name in names]
    results = _run(survey, data, unlike, map)
    unlike[0].finish([row for done in results for row in done.input_index])
    if survey.targets:
        unlike[1].finish([row for done in results for row in done.target_index])
    return results


def _run(survey: Survey, data: Data, places: Sequence[Place], map: Map) -> list[Done]:  # noqa: A002
    step = min(64, max(1, -(-survey.count // 64)))
    input_place, target_place = [*places, None, None][:2]
    jobs = [
        Job(
            start,
            survey.inputs[start : start + step],
            survey.targets[start : start + step] if survey.targets else None,
            survey.input_form,
            survey.target_form,
            data,
            input_place,
            target_place,
        )
        for start in range(0, survey.count, step)
    ]
    results: list[Done] = list(map(run_job, jobs))
    failures = [failure for done in results for failure in done.failures]
    if failures:
        more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
        raise RunFailed("; ".join(failures[:NAMED]) + more)
    return results


def _identities(form: Form | None, items: Sequence[Item]) -> list[Any]:
    """Of each file once, however many samples it has."""
    if form is None:
        return []
    files = list(dict.fromkeys(item.file for item in items))
    reader = form.reader

    def identity(file: str) -> Any:
        try:
            return reader.identity(file)
        except OSError as error:
            raise RunFailed(f"{file}: cannot be read: {error.strerror}") from None

    if not files or not is_url(files[0]):
        return [identity(file) for file in files]
    # Each is a question to a server.
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(identity, files))


def _leading(chain: Chain) -> list[Any]:
    return [step.transform.model_dump() for step in chain.steps[: chain.leading]]


@lru_cache(maxsize=4)
def _manifest(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / MANIFEST).read_text())


def is_whole(folder: Path) -> bool:
    """Whether every file of a prepared folder is there and unchanged since it was written, by its size and time, and a
    volume that is used where it lies is still what it was."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return all(_as_stored(folder / name) == stored for name, stored in manifest["stored"].items()) and all(
            identity(Form(**place["form"]), Item(*manifest[side][0])) == place["identity"]
            for side, place in manifest.get("in_place", {}).items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _as_stored(file: Path) -> list[int]:
    """Size, and nanoseconds of the last change: to read it all again would take as long as to make it."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename; a damaged folder makes way, a whole one that another run has put there meanwhile stays."""
    while building.exists():
        if folder.exists() and not is_whole(folder):
            with built_beside(folder) as away, suppress(FileNotFoundError):
                os.rename(folder, away / "damaged")
        try:
            os.rename(building, folder)
        except OSError as error:
            if is_whole(folder):
                return
            # One that was in the way may be gone by now: somebody has cleaned up.
            if folder.exists() or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
