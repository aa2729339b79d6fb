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
    assemble: Phase | None = None

    @property
    def phases(self) -> list[Phase]:
        each = (self.train, self.checkpoint, self.evaluate, self.assemble)
        return [phase for phase in each if phase is not None]


@dataclass(frozen=True)
class Group:
    """Consecutive epochs that run as one phase, `phase`; a single epoch runs in its own phases, and `phase` is None."""

    phase: Phase | None
    epochs: tuple[Epoch, ...]

    @property
    def phases(self) -> list[Phase]:
        return [self.phase] if self.phase is not None else [phase for epoch in self.epochs for phase in epoch.phases]


@dataclass(frozen=True)
class SliceSet:
    """What a set of slicers makes of a role's array.

    `counts`: slices along each axis of space. `sample_shape`: as the network gets it, channels first. `extent`: how far
    the slices reach, channels apart, which is the shape of the prediction. `prediction_shape`: of the assembled
    dataset, channels first; None: it is not assembled. `padded`: some voxels of some slice are padding or fill.
    """

    role: str
    name: str
    samples: int
    counts: tuple[int, ...]
    sample_shape: tuple[int | None, ...]
    batches: int
    extent: tuple[int, ...]
    prediction_shape: tuple[int, ...] | None
    overlaps: bool
    gaps: bool
    padded: bool

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Plan:
    """The phases of a run in their order, and the figures `rml plan` prints.

    `load`, `transform`: a phase a role. `slice`: the phases of a role that is cut into slices, one a set, in the order
    of the run file.
    """

    app: str
    load: dict[str, Phase]
    slice: dict[str, tuple[Phase, ...]]
    transform: dict[str, Phase]
    build: Phase
    groups: tuple[Group, ...]
    samples: dict[str, int]
    batches: dict[str, int]
    sample_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    parameters: int
    slice_sets: tuple[SliceSet, ...] = ()

    @property
    def phases(self) -> list[Phase]:
        prepared = []
        for role, phase in self.load.items():
            prepared += [phase, *self.slice.get(role, ())]
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
            "slice_sets": [each.as_json() for each in self.slice_sets],
        }

    def as_text(self) -> str:
        """What `rml plan` prints: figures, then a line a phase; long runs of epochs are shown by their ends."""

        lines = [f"app {self.app}"]
        for role, key in (("training", "train"), ("test", "test")):
            if self.samples[key]:
                samples, batches = self.samples[key], self.batches[key]
                counted = f"{samples} {role} {'sample' if samples == 1 else 'samples'}"
                lines.append(f"{counted} in {batches} {'batch' if batches == 1 else 'batches'}")
                lines += [f"  {_said(each)}" for each in self.slice_sets if each.role == role]
        lines.append(f"sample {_shape(self.sample_shape)}, output {_shape(self.output_shape)} (channels first)")
        lines.append(f"{self.parameters:,} parameters")
        names = [phase.name for phase in self.phases]
        if len(names) > 30:
            names = [*names[:12], f"... {len(names) - 20} more ...", *names[-8:]]
        return "\n".join([*lines, "", *(f"  {name}" for name in names)])


def _shape(sizes: tuple[int | None, ...]) -> str:
    return " x ".join("?" if size is None else str(size) for size in sizes)


def _said(each: SliceSet) -> str:
    """A slice set in a line of `rml plan`."""
    what = [f"{each.name}: {_shape(each.counts)} slices of {_shape(each.sample_shape)}"]
    what += [word for word, said in (("overlapping", each.overlaps), ("padded", each.padded)) if said]
    assembled = each.prediction_shape
    reach = f"reaching over {_shape(each.extent)}" if assembled is None else f"prediction {_shape(assembled)}"
    what.append(reach + (" with gaps" if each.gaps else ""))
    return ", ".join(what)


def _sets(checked: Checked, role: str, size: int) -> list[SliceSet]:
    """The slice sets of `role`, in batches of `size`."""
    survey = {"training": checked.training, "test": checked.test}[role]
    if survey is None:
        return []
    data = checked.run.file.data
    channels = None
    if role == "test" and data.hdf5_outfile is not None:
        channels = 1 if data.hdf5_output == "argmax" else checked.network.output_shape[0] or 1
    return [
        SliceSet(
            role=role,
            name=grid.name,
            samples=grid.count,
            counts=grid.counts,
            sample_shape=shape,
            batches=-(-grid.count // size),
            extent=grid.extent,
            prediction_shape=(channels, *grid.extent) if channels is not None else None,
            overlaps=grid.overlaps,
            gaps=grid.gaps,
            padded=grid.fills,
        )
        for grid, shape in zip(survey.grids, survey.set_shapes, strict=True)
    ]


def plan(checked: Checked, epoch: int = 0, batch: int = 0) -> Plan:
    """The plan of a run that stands after `batch` of `epoch` (batch 0: at its end; epoch 0: a new run)."""
    file = checked.run.file
    surveys = {"training": checked.training, "test": checked.test}
    sizes = {"training": file.data.batch_size, "test": file.data.test_batch_size}
    counts = {role: survey.count if survey is not None else 0 for role, survey in surveys.items()}
    prepared = [role for role, survey in surveys.items() if survey is not None]
    sets = {role: _sets(checked, role, sizes[role]) for role in prepared}
    batches = {
        role: sum(each.batches for each in sets.get(role, [])) or -(-counts[role] // sizes[role]) for role in surveys
    }
    return Plan(
        app=checked.app,
        load={role: Phase(f"load {role}", "load") for role in prepared},
        slice={
            role: tuple(Phase(f"slice {role} {each.name}", "slice") for each in own)
            for role, own in sets.items()
            if own
        },
        transform={role: Phase(f"transform {role}", "transform") for role in prepared if checked.transforms_first},
        build=Phase("build network", "build"),
        groups=tuple(_groups(checked, epoch, batch)),
        samples={"train": counts["training"], "test": counts["test"]},
        batches={"train": batches["training"], "test": batches["test"]},
        sample_shape=checked.network.input_shape,
        output_shape=checked.network.output_shape,
        parameters=checked.network.parameters,
        slice_sets=tuple(each for own in sets.values() for each in own),
    )


def _assembling(checked: Checked, epoch: int | None = None) -> Phase | None:
    """The phase that assembles the predictions of `epoch`; None: the only ones. No phase where they are not."""
    outfile = checked.run.file.data.hdf5_outfile
    if outfile is None or checked.test is None:
        return None
    name = f"assemble {outfile.rstrip('/').rpartition('/')[2]}"
    return Phase(name if epoch is None else f"{name}, epoch {epoch}", "assemble")


def _groups(checked: Checked, done: int, batch: int) -> list[Group]:
    file = checked.run.file
    evaluates = checked.test is not None
    if checked.training is None:
        return [Group(None, (Epoch(1, None, None, Phase("evaluate epoch 1", "evaluate"), _assembling(checked)),))]
    last = file.num_epochs
    saving = file.checkpoints if file.checkpoints is not None and file.checkpoints.save is not None else None

    def epoch(number: int) -> Epoch:
        saved = saving is not None and (number % saving.interval == 0 or number == last)
        return Epoch(
            number,
            Phase(f"train epoch {number}", "train"),
            Phase(f"checkpoint epoch {number}", "checkpoint") if saved else None,
            Phase(f"evaluate epoch {number}", "evaluate") if evaluates else None,
            _assembling(checked, number),
        )

    groups = []
    if done and not batch and evaluates:
        # The run may have been killed between that checkpoint and its evaluation.
        again = Phase(f"evaluate epoch {done}", "evaluate")
        groups.append(Group(None, (Epoch(done, None, None, again, _assembling(checked, done)),)))
    first = done if batch else done + 1
    size = -(-last // MOST_EPOCH_PHASES)
    while first <= last:
        end = min(-(-first // size) * size, last)
        epochs = tuple(epoch(number) for number in range(first, end + 1))
        name = f"train epochs {first}-{end}" if end > first else f"train epoch {first}"
        groups.append(Group(Phase(name, "train") if size > 1 else None, epochs))
        first = end + 1
    return groups
