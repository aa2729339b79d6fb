"""What every file-based type of data is: a reader that finds samples, knows their shapes, and reads one.

Samples are *held* as (H, W, C) where they are 2D, as OpenCV has them, and channels first where they are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from rml_core.config import remote
from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.data.pairing import find_files, natural_order, split_inside, stem_of
from rml_core.data.table import DATA_TYPES

if TYPE_CHECKING:
    import numpy as np

    from rml_core.config.paths import AnyPath
    from rml_core.data.volumes import Source

Role = Literal["training", "test"]
ROLES: tuple[Role, ...] = ("training", "test")
Shape = tuple[int | None, ...]
Given = TypeVar("Given")
Made = TypeVar("Made")

# Those of a sample: a channel, and up to three of space.
MOST_AXES = 4

# So many damaged files a report names.
NAMED = 20

# How many files are looked at side by side, and how many a thread takes at once.
THREADS, PART = 8, 64


class Item(NamedTuple):
    """Where a sample lies: a file, and the name of the sample inside it; "": it is the whole file."""

    file: str
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.file}:/{self.inside}" if self.inside else self.file


class Header(NamedTuple):
    """What is known of a sample without reading it: its shape as it lies there, and the name of its type."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Form:
    """How the files of one side become arrays. `type`: a name of `DATA_TYPES`. `add_channel`: samples lie there without
    a channel axis, and get one."""

    type: str
    gray: bool = False
    mask: bool = False
    add_channel: bool = False

    @property
    def reader(self) -> Reader:
        return DATA_TYPES[self.type].reader

    def read(self, item: Item) -> np.ndarray:
        """The sample, held, in its own type; a mask's values are integers, in one channel. Raises `RunFailed` naming
        it."""
        return self.reader.read(item, self)


@dataclass(frozen=True)
class Found:
    """The samples at a path, in natural order.

    `folder`: what names are below; `files`: each sample's file below it. `headers`: None where sizes have to be
    measured, file by file. `labels`, `classes`: class indices, where the files hold these and no samples. `inside`:
    the group or dataset that was named.
    """

    folder: AnyPath
    files: tuple[str, ...]
    items: tuple[Item, ...]
    single: bool = False
    headers: tuple[Header, ...] | None = None
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    inside: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The samples below the folder: `cats/a.jpg`, `a.h5/group/name`."""
        return tuple(_joined(file, item.inside) for file, item in zip(self.files, self.items, strict=True))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """What inputs and targets pair by: the path below the folder without extension, and the name inside; where a
        single file was named, the name inside."""
        return tuple(
            item.inside if self.single and item.inside else _joined(stem_of(file), item.inside)
            for file, item in zip(self.files, self.items, strict=True)
        )

    @cached_property
    def keys_below(self) -> tuple[str, ...]:
        """`keys`, below the group or dataset that was named."""
        return tuple(key.removeprefix(self.inside).lstrip("/") for key in self.keys) if self.inside else self.keys

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The samples below the folder, by folders and groups alone: a file is no folder."""
        return tuple(
            _joined(file.rpartition("/")[0], item.inside) if item.inside else file
            for file, item in zip(self.files, self.items, strict=True)
        )


class Reader(ABC):
    """One type's files. `what`: what they are called in messages, in the plural. `whole_files`: a file is a sample, and
    is not opened to be found. `one_each`: how samples x[0], x[1], ... are written, each as one of its own."""

    what: ClassVar[str]
    whole_files: ClassVar[bool] = False
    one_each: ClassVar[str] = ""

    @abstractmethod
    def counts(self, name: str) -> bool:
        """Whether a file of a folder is one of these, told by its name."""

    def is_store(self, names: Iterable[str]) -> bool:
        """Whether a folder with these entries is one store, to be taken as a file."""
        return False

    def contents(self, file: str, inside: str) -> list[tuple[str, Header]]:
        """The samples of `file`, at least one, below `inside` where that is given: their names inside, and headers.

        Raises `RunFailed` naming the file.
        """
        raise NotImplementedError

    def channels(self, form: Form) -> int | None:
        """How many channels samples have, where the type says so."""
        return None

    def shape(self, header: Header, form: Form) -> tuple[int, ...]:
        """The shape of a sample, channels first."""
        return (1, *header.shape) if form.add_channel else header.shape

    def measure(self, items: Sequence[Item], form: Form) -> tuple[list[Header | None], list[str]]:
        """The headers that `contents` has left out, and what is wrong with those that have none."""
        raise NotImplementedError

    @abstractmethod
    def read(self, item: Item, form: Form) -> np.ndarray:
        """See `Form.read`."""

    def volume(self, item: Item, cache_bytes: int) -> Source:
        """An array that is read box by box, as it lies there. Raises `RunFailed`; see `volumes.opened_volume`."""
        raise NotImplementedError

    def beside(self, path: str, base: AnyPath | str, where: str, role: Role) -> Found | None:
        """The targets that lie where the inputs are, at `path`; None: there are none. Raises `Refused`."""
        raise NotImplementedError

    def identity(self, file: str) -> Any:
        """As long as it is the same, so is the file. Raises `OSError`."""
        return remote.identity(file)

    def find(
        self, path: str, base: AnyPath | str, where: str, role: Role, as_target: bool, volumes: bool = False
    ) -> Found:
        """The samples at `path`, a folder, a file, or `file:/name/inside`. `volumes`: they are arrays to be cut, of as
        many axes as they have. Raises `Refused`."""
        place, inside = split_inside(path, base)
        folder, files = find_files(place, where, self.counts, self.what, self.is_store)
        single, locations = folder != place, absolute(folder, files)
        if self.whole_files:
            return Found(folder, tuple(files), tuple(map(Item, locations)), single)
        if inside and not single:
            what = f"{place} is a folder, and only a file has names inside"
            raise Refused([Problem(where, what, "", f"name the file: {locations[0]}:/{inside}")])

        def contents(file: str) -> list[tuple[str, Header]]:
            there = self.contents(file, inside)
            if not volumes:
                _check_axes(file, there)
            return there

        found, failures = in_threads(contents, locations)
        refuse_failures(failures, where)
        entries = [
            (name, Item(location, each), header)
            for name, location, contents in zip(files, locations, found, strict=True)
            for each, header in contents or ()
        ]
        names, items, headers = zip(*entries, strict=True)
        return Found(folder, names, items, single, headers, inside=inside)


def _check_axes(file: str, contents: Sequence[tuple[str, Header]]) -> None:
    """Raises `RunFailed` naming the first of `contents` that has too many axes for a sample."""
    many = [(Item(file, name), header.shape) for name, header in contents if len(header.shape) > MOST_AXES]
    if many:
        item, shape = many[0]
        more = f"; nor do {len(many) - 1} more arrays fit" if len(many) > 1 else ""
        raise RunFailed(
            f"{item}: its shape is {shape}, and a sample has {MOST_AXES} axes at most: channels, and three of space; "
            f"where all samples are in one array, write each by itself, or cut it with slicers{more}"
        )


def absolute(folder: AnyPath, names: Sequence[str]) -> list[str]:
    """The files `names` below `folder`, as text that leads to them."""
    text = remote.text_of(folder)
    return [remote.below(text, name) for name in names]


def in_threads(step: Callable[[Given], Made], given: Sequence[Given]) -> tuple[list[Made | None], list[str]]:
    """What `step` makes of each, and what it says (`RunFailed`) of those where it fails, sorted."""
    failures: list[str] = []

    def attempt(each: Given) -> Made | None:
        try:
            return step(each)
        except RunFailed as error:
            failures.append(str(error))
            return None

    def attempts(part: Sequence[Given]) -> list[Made | None]:
        return [attempt(each) for each in part]

    # Handing on one by one costs more than a header takes to be read.
    size = min(PART, -(-len(given) // THREADS)) or 1
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        parts = pool.map(attempts, (given[start : start + size] for start in range(0, len(given), size)))
        made = [each for part in parts for each in part]
    return made, natural_order(failures)


def refuse_failures(failures: Sequence[str], where: str) -> None:
    """Raises `Refused` with the first of `failures`, and the count of the others."""
    if not failures:
        return
    problems = [Problem(where, failure) for failure in failures[:NAMED]]
    if len(failures) > NAMED:
        problems.append(Problem(where, f"{len(failures) - NAMED} more files cannot be read"))
    raise Refused(problems)


def held(array: np.ndarray) -> np.ndarray:
    """`array`, channels first, as samples are held."""
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def held_shape(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape in which samples of `shape`, channels first, are held."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else tuple(shape)


def channels_first(shape: Shape) -> Shape:
    """A shape with its channels last as one with its channels first."""
    return (shape[-1], *shape[:-1])


def _joined(name: str, inside: str) -> str:
    return f"{name}/{inside}" if name and inside else name or inside
