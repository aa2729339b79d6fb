"""Where a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rml_core.check import Checked
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused
from rml_core.engine.log import LogFiles


@dataclass(frozen=True)
class Places:
    """Absolute paths; None: the run writes nothing of that kind."""

    logs: LogFiles | None
    checkpoints: Path | None
    output: Path | None
    debug: Path | None

    @classmethod
    def of(cls, checked: Checked) -> Places:
        file, base = checked.run.file, checked.run.base
        save = file.checkpoints.save if file.checkpoints is not None else None
        output = file.data.test_output_path
        outfile = resolve(file.outfile, base) if file.outfile is not None else None
        return cls(
            logs=LogFiles.beside(outfile) if outfile is not None else None,
            checkpoints=resolve(save, base) if save is not None and checked.training is not None else None,
            output=resolve(output, base) if output is not None and checked.test is not None else None,
            debug=(outfile.parent if outfile is not None else Path.cwd()) if file.debug else None,
        )

    def make(self) -> list[tuple[str, Path]]:
        """Make the folders; gives the places that no other run may write to meanwhile, each with its JSON path.

        Raises:
            Refused: a place cannot be written.
        """
        wanted: list[tuple[str, Path, bool]] = []
        if self.logs is not None:
            wanted.append(("neural_network.outfile", self.logs.train, True))
        if self.checkpoints is not None:
            wanted.append(("neural_network.checkpoints.save", self.checkpoints, False))
        if self.output is not None:
            wanted.append(("neural_network.data.test_output_path", self.output, False))
        problems = []
        for where, path, is_file in wanted:
            try:
                (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)
                if is_file:
                    path.touch()
            except OSError as error:
                what = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
                problems.append(Problem(where, what, remedy="choose another place, or make this one writable"))
        if problems:
            raise Refused(problems)
        return [(where, path) for where, path, _ in wanted]

    def written(self) -> list[Path]:
        """What is there at the end, for the user to find."""
        files: list[Path] = []
        if self.logs is not None:
            files += [
                path
                for path in (self.logs.train, self.logs.test, self.logs.metrics, self.logs.report)
                if path.exists() and path.stat().st_size
            ]
        if self.checkpoints is not None:
            files += sorted(self.checkpoints.glob("model_checkpoint_*.pt"), key=lambda path: path.stat().st_mtime)[-1:]
        if self.output is not None:
            files += sorted(self.output.glob("output_*.h5"), key=lambda path: path.stat().st_mtime)[-1:]
        return files
