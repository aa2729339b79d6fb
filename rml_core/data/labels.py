"""Labels: the class of a sample is the name of a folder above its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rml_core.config.problem import Problem, Refused, listed
from rml_core.data.pairing import class_folder

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


def label(
    folder: AnyPath, names: Sequence[str], tag: str | None, tag_key: str, where: str, classes: tuple[str, ...] | None
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """(class index of each file, class names). Sorted folder names are the classes, or `classes` where they are known:
    then no file in a known class's folder means that there are no labels, and an unseen class is refused.

    `where` is the JSON path of the section, `tag_key` the key that `tag` came from.
    """
    folders = [class_folder(folder, name, tag) for name in names]
    if classes is not None and not set(folders) & set(classes):
        return None, classes
    lost = [name for name, found in zip(names, folders, strict=True) if found is None]
    if lost:
        what = f'{folder / lost[0]} has no folder right below a component "{tag}" of its path'
        more = f" (nor have {len(lost) - 1} other files)" if len(lost) > 1 else ""
        remedy = f"name the component above the class folders, or leave out {tag_key}: then the parent folder counts"
        raise Refused([Problem(f"{where}.{tag_key}", what + more, "", remedy)])
    known = classes if classes is not None else tuple(sorted({found for found in folders if found is not None}))
    index = {name: i for i, name in enumerate(known)}
    unseen: dict[str, str] = {}
    for name, found in zip(names, folders, strict=True):
        if found is not None and found not in index:
            unseen.setdefault(found, name)
    if unseen:
        raise Refused(
            Problem(
                f"{where}.test_input_path",
                f'class "{found}" of {folder / name} was not there in training',
                f"the classes of training: {listed(known)}",
                "leave these files out, train with this class, or set test_tag where the class is another folder",
            )
            for found, name in unseen.items()
        )
    return tuple(index[found] for found in folders if found is not None), known
