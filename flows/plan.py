"""What a run will do: its phases by name, with sample counts, batches and shapes. The flow does what stands here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rml_core.check import Checked

# More epochs than this are run in groups, one phase a group: a graph of thousands of phases cannot be read.
MOST_EPOCH_PHASES = 100


@dataclass(frozen=True)
class Phase:
    """One Prefect task run."""

    name: str
    kind: str


@dataclass(frozen=True)
class Epoch:
    """One epoch's phases; None: it has no such phase."""

    number: int
    train: Phase | None
    checkpoint: Phase | None
    evaluate: Phase | None

    @property
    def phases(self) -> list[Phase]:
        return [phase for phase in (self.train, self.checkpoint, self.evaluate) if phase is not None]


@dataclass(frozen=True)
class Group:
    """Consecutive epochs that run as one phase, `phase`; a single epoch runs in its own phases, and `phase` is None."""

    phase: Phase | None
    epochs: tuple[Epoch, ...]

    @property
    def phases(self) -> list[Phase]:
        return [self.phase] if self.phase is not None else [phase for epoch in self.epochs for phase in epoch.phases]


@dataclass(frozen=True)
class Plan:
    """The phases of a run in their order, and the figures `rml plan` prints."""

    app: str
    load: dict[str, Phase]
    transform: dict[str, Phase]
    build: Phase
    groups: tuple[Group, ...]
    samples: dict[str, int]
    batches: dict[str, int]
    sample_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    parameters: int

    @property
    def phases(self) -> list[Phase]:
        prepared = []
        for role, phase in self.load.items():
            prepared.append(phase)
            if role in self.transform:
                prepared.append(self.transform[role])
        return [*prepared, self.build, *(phase for group in self.groups for phase in group.phases)]

    @property
    def trains(self) -> bool:
        """There is an epoch to train."""
        return any(epoch.train is not None for group in self.groups for epoch in group.epochs)

    def as_json(self) -> dict[str, Any]:
        return {
            "app": self.app,
            "phases": [{"name": phase.name, "kind": phase.kind} for phase in self.phases],
            "samples": self.samples,
            "batches": self.batches,
            "sample_shape": list(self.sample_shape),
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
            "slice_sets": [],
        }

    def as_text(self) -> str:
        """What `rml plan` prints: figures, then a line a phase; long runs of epochs are shown by their ends."""

        def shape(sizes: tuple[int | None, ...]) -> str:
            return " x ".join("?" if size is None else str(size) for size in sizes)

        lines = [f"app {self.app}"]
        for role, key in (("training", "train"), ("test", "test")):
            if self.samples[key]:
                lines.append(f"{self.samples[key]} {role} samples in {self.batches[key]} batches")
        lines.append(f"sample {shape(self.sample_shape)}, output {shape(self.output_shape)} (channels first)")
        lines.append(f"{self.parameters:,} parameters")
        names = [phase.name for phase in self.phases]
        if len(names) > 30:
            names = [*names[:12], f"... {len(names) - 20} more ...", *names[-8:]]
        return "\n".join([*lines, "", *(f"  {name}" for name in names)])


def plan(checked: Checked, epoch: int = 0, batch: int = 0) -> Plan:
    """The plan of a run that stands after `batch` of `epoch` (batch 0: at its end; epoch 0: a new run)."""
    file = checked.run.file
    surveys = {"training": checked.training, "test": checked.test}
    sizes = {"training": file.data.batch_size, "test": file.data.test_batch_size}
    counts = {role: survey.count if survey is not None else 0 for role, survey in surveys.items()}
    prepared = [role for role, survey in surveys.items() if survey is not None]
    return Plan(
        app=checked.app,
        load={role: Phase(f"load {role}", "load") for role in prepared},
        transform={role: Phase(f"transform {role}", "transform") for role in prepared if checked.transforms_first},
        build=Phase("build network", "build"),
        groups=tuple(_groups(checked, epoch, batch)),
        samples={"train": counts["training"], "test": counts["test"]},
        batches={
            "train": -(-counts["training"] // sizes["training"]),
            "test": -(-counts["test"] // sizes["test"]),
        },
        sample_shape=checked.network.input_shape,
        output_shape=checked.network.output_shape,
        parameters=checked.network.parameters,
    )


def _groups(checked: Checked, done: int, batch: int) -> list[Group]:
    file = checked.run.file
    evaluates = checked.test is not None
    if checked.training is None:
        return [Group(None, (Epoch(1, None, None, Phase("evaluate epoch 1", "evaluate")),))]
    last = file.num_epochs
    saving = file.checkpoints if file.checkpoints is not None and file.checkpoints.save is not None else None

    def epoch(number: int) -> Epoch:
        saved = saving is not None and (number % saving.interval == 0 or number == last)
        return Epoch(
            number,
            Phase(f"train epoch {number}", "train"),
            Phase(f"checkpoint epoch {number}", "checkpoint") if saved else None,
            Phase(f"evaluate epoch {number}", "evaluate") if evaluates else None,
        )

    groups = []
    if done and not batch and evaluates:
        # The run may have been killed between that checkpoint and its evaluation.
        groups.append(Group(None, (Epoch(done, None, None, Phase(f"evaluate epoch {done}", "evaluate")),)))
    first = done if batch else done + 1
    size = -(-last // MOST_EPOCH_PHASES)
    while first <= last:
        end = min(-(-first // size) * size, last)
        epochs = tuple(epoch(number) for number in range(first, end + 1))
        name = f"train epochs {first}-{end}" if end > first else f"train epoch {first}"
        groups.append(Group(Phase(name, "train") if size > 1 else None, epochs))
        first = end + 1
    return groups
