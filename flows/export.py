"""`rml export`: what was trained, for programs that know nothing of rml. The checkpoint alone is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rml_core.config import remote
from rml_core.config.paths import problem_of_writing, resolve
from rml_core.config.problem import Problem, Refused, RunFailed, listed, nearest
from rml_core.run import ROOT

if TYPE_CHECKING:
    from upath import UPath

    from rml_core.config.paths import AnyPath
    from rml_core.layers.export import Exported

INSTALL = 'pip install "rml[onnx]"'


@dataclass(frozen=True)
class Format:
    """`write`: of what torch has exported, and of texts to put beside it, to the file's bytes and a few words on it.
    `needs`: packages that are looked for before work."""

    suffix: str
    write: Callable[[Exported, Mapping[str, str]], tuple[bytes, str]]
    needs: tuple[str, ...] = ()


def _onnx(made: Exported, texts: Mapping[str, str]) -> tuple[bytes, str]:
    from rml_core.layers.export import as_onnx

    content, opset = as_onnx(made, {f"rml.{name}": text for name, text in texts.items()})
    return content, f"ONNX, opset {opset}"


def _torch(made: Exported, texts: Mapping[str, str]) -> tuple[bytes, str]:
    from rml_core.layers.export import as_torch

    return as_torch(made, {"rml.json": json.dumps(texts)}), "a torch.export program"


FORMATS = {
    "onnx": Format(".onnx", _onnx, ("onnx", "onnxscript")),
    "torch": Format(".pt2", _torch),
}


def export(checkpoint: str, format_name: str, out: str | None) -> str:
    """Write the network of a run's checkpoint; what is to be said of the file that was written.

    Without `out`: a file beside the checkpoint, or in the working directory where that is behind a URL, named as the
    checkpoint.

    Raises:
        Refused: no such format, no checkpoint of a run, a package that is not installed, a place that cannot be
            written, a name that does not end as the format's files do.
        RunFailed: the network has no counterpart there, or the disk is full.
    """
    chosen = _format(format_name)
    source = resolve(checkpoint, "")
    where = _place(out if out is not None else _beside(source, chosen.suffix), chosen.suffix)
    saved = _checkpoint(source)
    from rml_core.engine import log
    from rml_core.layers import keras_json
    from rml_core.layers.export import exported

    section = json.loads(saved["run"])[ROOT]
    graph = keras_json.read(section["layers"], f"{ROOT}.layers", Path())
    shape = saved.get("sample_shape")
    made = exported(graph, saved["network"], tuple(shape) if shape is not None else None)
    about = _about(saved, section, made)
    content, kind = chosen.write(made, about)
    replaced = " (replaced)" if _is_there(where) else ""
    if isinstance(where, Path):
        log.put(where, content)
    else:
        _put(where, content)
    rows = [("file", f"{where}{replaced}: {kind}, float32, in evaluation mode"), *_lines(about)]
    return "\n".join(f"{name:8}{text}" for name, text in rows)


def _format(name: str) -> Format:
    chosen = FORMATS.get(name.casefold())
    if chosen is None:
        raise Refused([Problem("--format", f'unknown format "{name}"', listed(FORMATS), nearest(name, list(FORMATS)))])
    from importlib.util import find_spec

    missing = [package for package in chosen.needs if find_spec(package) is None]
    if missing:
        raise Refused([Problem("--format", f"{name.casefold()} needs packages: {listed(missing)}", "", INSTALL)])
    return chosen


def _beside(checkpoint: AnyPath, suffix: str) -> str:
    """Several runs' checkpoints have one name: beside each there is room for its own."""
    name = Path(checkpoint.name).with_suffix(suffix).name
    return str(checkpoint.with_name(name)) if isinstance(checkpoint, Path) else name


def _place(given: str, suffix: str) -> AnyPath:
    problem = problem_of_writing(given, "--out")
    if problem is not None:
        raise Refused([problem])
    path = resolve(given, "")
    if isinstance(path, Path) and path.is_dir():
        raise Refused([Problem("--out", f"{path} is a folder", "the name of a file")])
    if path.suffix.casefold() != suffix:
        raise Refused([Problem("--out", f"{path} does not end in {suffix}", f"{path.with_suffix(suffix)}")])
    if isinstance(path, Path) and not path.absolute().parent.is_dir():
        raise Refused([Problem("--out", f"{path} cannot be written: {path.absolute().parent} is no folder")])
    return path


def _is_there(path: AnyPath) -> bool:
    try:
        return remote.kind(path) == "file"
    except OSError:
        return False


def _put(path: UPath, content: bytes) -> None:
    try:
        with remote.written(path) as local:
            local.write_bytes(content)
    except OSError as error:
        raise RunFailed(f"{path}: {error.strerror or error}") from error


def _checkpoint(path: AnyPath) -> Mapping[str, Any]:
    from rml_core.checkpoints.content import content_of, damaged, is_torch, is_whole
    from rml_core.checkpoints.torch_files import is_checkpoint, load

    try:
        with remote.fetched(path) as file:
            saved = load(file, "", mmap=False) if is_torch(content_of(file, "")) else None
            if not is_checkpoint(saved) or saved is None:
                what = f"{path} is not a checkpoint of a run: weights alone do not say what their network is"
                raise Refused([Problem("", what, "a file that checkpoints.save left, as model_checkpoint_best.pt")])
            if not is_whole(file):
                raise damaged(file, "")
            return saved
    except OSError as error:
        raise Refused([Problem("", f"{path}: {error.strerror or error}")]) from None


def _about(saved: Mapping[str, Any], section: Mapping[str, Any], made: Exported) -> dict[str, str]:
    """What a program has to know to use the network, by name; the file carries it."""
    data = section["data"]
    about = {
        "input": f"{_axes(made.input_shape)}, channels first",
        "output": f"{_axes(made.output_shape)}, {made.network.last_activation}",
    }
    if made.sizes:
        about["sizes"] = made.sizes
    if saved["classes"]:
        about["classes"] = json.dumps(saved["classes"])
    if saved["mask_values"]:
        about["mask_values"] = json.dumps(saved["mask_values"])
    about["samples"] = _samples(data)
    transforms = [step for key in ("transforms", "input_transforms") for step in data.get(key) or ()]
    if transforms:
        about["transforms"] = json.dumps(transforms)
    about["checkpoint"] = f"epoch {saved['epoch']} of run {saved['run_id']}"
    return about


def _samples(data: Mapping[str, Any]) -> str:
    kind = str(data.get("input_type") or data.get("type")).casefold()
    if kind != "images":
        return kind
    gray = data.get("grayscale") or data.get("input_grayscale")
    return f"images, {'grey' if gray else 'BGR as OpenCV reads them'}; 8 and 16 bit as numbers from 0 to 1"


def _axes(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


# How a line about the file begins, and what it says of the text.
LINES = {
    "input": ("input", "{}"),
    "output": ("output", "{}"),
    "sizes": ("sizes", "{}"),
    "classes": ("classes", "{}, of the channels"),
    "mask_values": ("masks", "{}, of the channels: the value in the files for each"),
    "samples": ("samples", "{}"),
    "transforms": ("before", "{}"),
    "checkpoint": ("from", "{}"),
}


def _lines(about: Mapping[str, str]) -> list[tuple[str, str]]:
    lines = [(LINES[name][0], LINES[name][1].format(text)) for name, text in about.items()]
    if "transforms" in about:
        lines.insert(
            -1, ("", "not in the file: to be done to each sample; random transforms are left out at inference")
        )
    return lines
