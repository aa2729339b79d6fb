"""Where a run writes."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rml_core.check import Checked
from rml_core.config import remote
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused
from rml_core.config.roots import problem_of_place
from rml_core.data.pairing import natural_order
from rml_core.engine.log import LogFiles

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

# The folders below that of TensorBoard: figures a batch, and figures an epoch.
OF_BATCHES, OF_EPOCHS = "batches", "epochs"


@dataclass(frozen=True)
class Places:
    """Absolute paths; None: the run writes nothing of that kind. `prediction`: the assembled file."""

    logs: LogFiles | None
    checkpoints: AnyPath | None
    output: AnyPath | None
    debug: Path | None
    prediction: AnyPath | None = None
    tensorboard: Path | None = None

    @classmethod
    def of(cls, checked: Checked) -> Places:
        file, base = checked.run.file, checked.run.base
        save = file.checkpoints.save if file.checkpoints is not None else None
        output, prediction = file.data.test_output_path, file.data.hdf5_outfile
        outfile = Path(str(resolve(file.outfile, base))) if file.outfile is not None else None
        watched = file.tensorboard if checked.training is not None else None
        return cls(
            logs=LogFiles.beside(outfile) if outfile is not None else None,
            checkpoints=resolve(save, base) if save is not None and checked.training is not None else None,
            output=resolve(output, base) if output is not None and checked.test is not None else None,
            debug=(outfile.parent if outfile is not None else Path.cwd()) if file.debug else None,
            prediction=resolve(prediction, base) if prediction is not None and checked.test is not None else None,
            tensorboard=Path(str(resolve(watched, base))) if watched is not None else None,
        )

    @property
    def sections(self) -> AnyPath | None:
        """The picture of sections through the assembled file, beside it."""
        return self.prediction and self.prediction.with_name(f"{self.prediction.stem}_sections.png")

    @property
    def replaced(self) -> list[tuple[str, AnyPath]]:
        """What stays as it is until the end, each with its JSON path: no other run may write to it meanwhile."""
        return [("neural_network.data.hdf5_outfile", self.prediction)] if self.prediction is not None else []

    def make(self) -> list[tuple[str, AnyPath]]:
        """Make the folders; gives the places that no other run may write to meanwhile, each with its JSON path.

        Raises:
            Refused: a place cannot be written.
        """
        problems: dict[str, Problem] = {}
        tries: list[tuple[str, AnyPath, Callable[[], None]]] = []
        tries += [(where, path, partial(_try_file, path)) for where, path in self._files()]
        tries += [(where, path, partial(_try_folder, path)) for where, path in self._folders()]
        tries += [(where, path, partial(_try_folder, path)) for where, path in self._parts()]
        # Behind a URL a file comes when it is whole.
        behind = [(where, path.parent) for where, path in self.replaced if not isinstance(path, Path)]
        tries += [(where, path, partial(_try_folder, path)) for where, path in behind]
        for where, path, tried in tries:
            if (problem := problem_of_place(path, where=where)) is not None:
                problems.setdefault(where, problem)
                continue
            try:
                tried()
            except OSError as error:
                what = f"{path} cannot be written: {_why(path, error)}"
                remedy = "choose another place, or make this one writable"
                problems.setdefault(where, Problem(where, what, remedy=remedy))
        if problems:
            raise Refused(problems.values())
        held = self._folders()
        if self.logs is not None:
            self.logs.train.touch()
            held.insert(0, ("neural_network.outfile", self.logs.train))
        return held

    def _files(self) -> list[tuple[str, Path]]:
        files = []
        if self.logs is not None:
            each = (self.logs.train, self.logs.test, self.logs.metrics, self.logs.report)
            files += [("neural_network.outfile", path) for path in each]
        if self.debug is not None:
            files.append(("neural_network.debug", self.debug / "network.dot"))
        where = "neural_network.data.hdf5_outfile"
        files += [(where, path) for path in (self.prediction, self.sections) if isinstance(path, Path)]
        return files

    def _folders(self) -> list[tuple[str, AnyPath]]:
        folders: list[tuple[str, AnyPath]] = []
        if self.checkpoints is not None:
            folders.append(("neural_network.checkpoints.save", self.checkpoints))
        if self.output is not None:
            folders.append(("neural_network.data.test_output_path", self.output))
        if self.tensorboard is not None:
            folders.append(("neural_network.tensorboard", self.tensorboard))
        return folders

    def _parts(self) -> list[tuple[str, Path]]:
        """Folders in those of `_folders`, which may be links by themselves."""
        if self.tensorboard is None:
            return []
        return [("neural_network.tensorboard", self.tensorboard / name) for name in (OF_BATCHES, OF_EPOCHS)]

    def written(self) -> list[tuple[AnyPath, str]]:
        """What is there at the end, for the user to find: the newest file of each kind, and how many there are."""
        files: list[tuple[AnyPath, str]] = []
        if self.logs is not None:
            files += [
                (path, "")
                for path in (self.logs.train, self.logs.test, self.logs.metrics, self.logs.report)
                if path.exists() and path.stat().st_size
            ]
        if self.checkpoints is not None:
            files += _checkpoints(self.checkpoints)
        if self.output is not None:
            files += _newest(self.output, "output_*.h5")
        files += [(path, "") for path in (self.prediction, self.sections) if path is not None and _is_there(path)]
        if self.tensorboard is not None:
            files.append((self.tensorboard, "for tensorboard --logdir"))
        if self.debug is not None:
            files += _newest(self.debug, "network.dot") + _newest(self.debug, "debug_*.json")
        return files


def _try_file(path: Path) -> None:
    """Raises `OSError` where `path` cannot be written; a file that is not there yet is not made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.open("ab").close()
    else:
        _try_folder(path.parent)


def _try_folder(path: AnyPath) -> None:
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        return
    tried = path / f".rml-{uuid.uuid4().hex}"
    with remote.written(tried) as local:
        local.write_bytes(b"can this be written?")
    remote.remove(tried)


def _is_there(path: AnyPath) -> bool:
    try:
        return remote.kind(path) == "file"
    except OSError:
        return False


def _newest(folder: AnyPath, pattern: str) -> list[tuple[AnyPath, str]]:
    """The file that was written last, where there is one."""
    try:
        found = natural_order(name for name in remote.names(folder) if fnmatch(name, pattern))
        return [(path, "") for path in sorted((folder / name for name in found), key=remote.changed)[-1:]]
    except OSError:
        return []


def _checkpoints(folder: AnyPath) -> list[tuple[AnyPath, str]]:
    from rml_core.checkpoints import native

    try:
        left = native.left(folder)
    except OSError:
        return []
    epochs = [path for path in left if native.EPOCH.fullmatch(path.name)]
    newest = [(epochs[-1], f"the newest of {len(epochs)}" if len(epochs) > 1 else "")] if epochs else []
    return newest + [(path, "") for path in left if path not in epochs]


def _why(path: AnyPath, error: OSError) -> str:
    if not isinstance(path, Path):
        return error.strerror or str(error)
    file = next((folder for folder in path.parents if folder.is_file()), None)
    return f"{file} is a file" if file is not None else (error.strerror or str(error)).lower()
