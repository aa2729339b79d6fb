"""Which files there are, in what order, and which belong together."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natsort import natsort_keygen, ns

from rml_core.config import remote, roots
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused, listed

if TYPE_CHECKING:
    from upath import UPath

    from rml_core.config.paths import AnyPath

# So many names a message lists before it only counts.
SHOWN = 5

_natsort = natsort_keygen(alg=ns.INT)
_NUMBER = re.compile("([0-9]+)")
# Python makes no numbers of thousands of digits.
_SHORT = 255


def _natural(part: str) -> tuple[Any, ...]:
    """natsort's key, which takes thirty times as long to make: of a hundred thousand names, seconds."""
    if not part.isascii() or len(part) > _SHORT:
        return _natsort(part)
    pieces: list[Any] = _NUMBER.split(part)
    pieces[1::2] = map(int, pieces[1::2])
    return tuple(pieces)


def natural_order(names: Iterable[str]) -> list[str]:
    """Relative paths, folder by folder, numbers by their value: img2 before img10."""
    # Of folders, which many names have in common, each is looked at once.
    known: dict[str, list[tuple[Any, ...]]] = {}

    def key(name: str) -> list[tuple[Any, ...]]:
        folder, slash, last = name.rpartition("/")
        if folder not in known:
            known[folder] = [_natural(part) for part in folder.split("/")]
        return [*(known[folder] if slash else ()), _natural(last)]

    return sorted(sorted(names), key=key)


def split_inside(path: str, base: AnyPath | str) -> tuple[AnyPath, str]:
    """(the place that `path` means, without `.` and `..`; the name inside it): the name stands behind `:/`, as in
    `file.h5:/group/name`. A file whose own name has `:/` in it is that file."""
    whole = _normal(resolve(path, base))
    found = re.fullmatch("(.+):/(?!/)(.*)", path)
    if found is None or (isinstance(whole, Path) and whole.exists()):
        return whole, ""
    return _normal(resolve(found[1], base)), found[2].strip("/")


def _normal(path: AnyPath) -> AnyPath:
    return Path(os.path.normpath(path.absolute())) if isinstance(path, Path) else path


def no_store(names: Iterable[str]) -> bool:
    """What `find_files` asks of a folder's files where no folder is a store."""
    return False


def find_files(
    path: AnyPath,
    where: str,
    counts: Callable[[str], bool],
    kind: str,
    is_store: Callable[[Iterable[str]], bool] = no_store,
) -> tuple[AnyPath, list[str]]:
    """(folder, names below it with `/`, in natural order) of the files at `path`, which is a folder or one file.

    Folders are searched recursively, through links, and what is hidden is passed over; `counts` says by its name
    whether a file is one of `kind`. A folder whose files make it a store is taken as a file. Raises `Refused`.
    """
    path = _normal(path)
    if not isinstance(path, Path):
        return _find_behind_url(path, where, counts, kind, is_store)
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        parent = next((folder for folder in path.parents if folder.is_dir()), path)
        inside = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith(".")) if parent else []
        remedy = f"{parent} has {_some(inside)}" if inside else f"{parent} is empty"
        raise Refused([Problem(where, f"{path} does not exist", "a file or a folder", remedy)])
    outside: list[str] = []
    names = list(_walk(path, is_store, outside))
    if outside:
        raise Refused([_led_outside(path, outside, where)])
    if names == [("", True)]:
        return path.parent, [path.name]
    return path, _of_kind(path, names, where, counts, kind)


def _led_outside(path: Path, names: Sequence[str], where: str) -> Problem:
    allowed = roots.roots()
    assert allowed is not None
    what = f"{path} has links that lead outside of what may be read here: {_some(natural_order(names))}"
    return Problem(where, what, allowed.allowed, "put copies there instead of links, or take them out")


def _find_behind_url(
    path: UPath, where: str, counts: Callable[[str], bool], kind: str, is_store: Callable[[Iterable[str]], bool]
) -> tuple[AnyPath, list[str]]:
    try:
        there = remote.kind(path)
        if there == "file":
            return path.parent, [remote.name_of(path)]
        names = remote.find(path) if there == "folder" else []
    except OSError as error:
        raise Refused([Problem(where, f"{path} cannot be read: {error.strerror}")]) from None
    if there is None:
        raise Refused([Problem(where, f"{path} does not exist", "a file or a folder")])
    if not names and remote.is_http(path):
        what = f"{path} has no {kind}: this web page has no links to files below it"
        remedy = "name a folder that the server lists, a single file, or a copy on this machine"
        raise Refused([Problem(where, what, "", remedy)])
    stores = _outermost({name.rpartition("/")[0] for name in names if is_store([name.rpartition("/")[2]])})
    if stores == [""]:
        return path.parent, [remote.name_of(path)]
    inside = tuple(f"{name}/" for name in stores)
    found = [*((name, True) for name in stores), *((name, False) for name in names if not name.startswith(inside))]
    found = [each for each in found if not any(part.startswith(".") for part in each[0].split("/"))]
    return path, _of_kind(path, found, where, counts, kind)


def _outermost(folders: Iterable[str]) -> list[str]:
    """Those that lie in no other of them."""
    kept: list[str] = []
    for folder in sorted(folders, key=lambda name: name.split("/")):
        if not kept or (kept[-1] and not folder.startswith(f"{kept[-1]}/")):
            kept.append(folder)
    return kept


def _of_kind(
    path: AnyPath, found: Iterable[tuple[str, bool]], where: str, counts: Callable[[str], bool], kind: str
) -> list[str]:
    names, others = [], Counter[str]()
    for name, a_store in found:
        if a_store or counts(name):
            names.append(name)
        else:
            others[Path(name).suffix.lower() or "without a suffix"] += 1
    if not names:
        there = listed(f"{count} {suffix}" for suffix, count in others.most_common(SHOWN))
        what = f"{path} has no {kind}" + (f", only other files: {there}" if others else ": it is empty")
        raise Refused([Problem(where, what, "", f"name the folder that has the {kind}, or put them there")])
    return natural_order(names)


def _walk(root: Path, is_store: Callable[[Iterable[str]], bool], outside: list[str]) -> Iterable[tuple[str, bool]]:
    """(name below `root`, whether it is a folder that is a store); "" is `root` itself. Links that lead out of what may
    be read are not followed, and put into `outside`."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        leaving = roots.links_outside(folder, [*folders, *files])
        outside += [name if below == "." else f"{below}/{name}" for name in leaving]
        folders[:] = [name for name in folders if name not in leaving]
        if is_store(files):
            # All that is in its folders is read as part of it.
            outside += [name for each in folders for name in roots.leaving(os.path.join(folder, each), str(root))]
            folders.clear()
            yield "" if below == "." else below, True
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield name if below == "." else f"{below}/{name}", False


def pair(
    inputs: Sequence[str],
    targets: Sequence[str],
    where: str,
    folders: tuple[AnyPath, AnyPath],
    keys: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[int]:
    """For each input the position of its target: the one of the same key, else, where the counts agree, the one at the
    same place in natural order. `keys`: of the inputs, and of the targets; left out, relative paths without suffix.
    Raises `Refused` listing what has no partner."""
    wanted, stems = keys or ([stem_of(name) for name in inputs], [stem_of(name) for name in targets])
    positions = {stem: i for i, stem in enumerate(stems)}
    one_to_one = len(positions) == len(targets) and len(set(wanted)) == len(wanted)
    if one_to_one and set(wanted) == set(stems):
        return [positions[stem] for stem in wanted]
    if len(inputs) == len(targets):
        return list(range(len(targets)))
    alone = [name for name, stem in zip(inputs, wanted, strict=True) if stem not in positions]
    spare = [name for name, stem in zip(targets, stems, strict=True) if stem not in set(wanted)]
    parts = [f"{len(inputs)} inputs in {folders[0]} and {len(targets)} targets in {folders[1]} do not pair"]
    if alone:
        parts.append(f"inputs without a target: {_some(alone)}")
    if spare:
        parts.append(f"targets without an input: {_some(spare)}")
    if not one_to_one:
        twice = [stem for stem, count in Counter(wanted).items() if count > 1]
        twice += [stem for stem, count in Counter(stems).items() if count > 1]
        parts.append(f"names that differ in their suffix only: {_some(twice)}")
    remedy = "give both the same name (suffixes may differ), or as many of one as of the other"
    raise Refused([Problem(where, "; ".join(parts), "", remedy)])


def stem_of(name: str) -> str:
    """`a/b.c` as `a/b`."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + Path(file).stem


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return listed(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def class_folder(folder: AnyPath, name: str, tag: str | None) -> str | None:
    """The folder that names the class of the file `name` below `folder`: its parent, or the one right below the last
    component `tag` of its path; None where there is none."""
    parts = [*folder.parts, *name.split("/")[:-1]]
    if tag is None:
        return parts[-1]
    places = [i for i, part in enumerate(parts[:-1]) if part == tag]
    return parts[places[-1] + 1] if places else None
